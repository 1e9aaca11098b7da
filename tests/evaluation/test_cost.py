"""Cost before deployment: the load is what was asked for, memory is counted exactly, and the gate reads it."""

import pytest

from models.checkpoint import save_model
from models.cost import _load, cost, weights_mib
from models.gate import judge
from models.zoo import build_model
from tests.sample_folder import SPEC, write_samples
from uniscale.artifacts import read_json
from uniscale.config import load_config

CONFIG = load_config(
    overrides=[
        "model.embedding_dim=4",
        "model.table_rows=512",
        "model.encoder=mean",
        "model.dlrm_mlp={hidden: [16]}",
        "cost={requests: 20, candidates: 33}",
    ]
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cost")
    for name, rows in (("small", 512), ("large", 2048)):
        config = CONFIG.model.model_copy(update={"table_rows": rows})
        save_model(build_model("dlrm_mlp", SPEC, config, 0).eval(), root / name, 0)
    return {"samples": write_samples(root / "samples", requests_per_day=6), "root": root}


def test_measures_of_both_models_are_written_for_the_gate(folders, tmp_path):
    root = folders["root"]
    found = cost(CONFIG.cost, 7, folders["samples"], root / "large", root / "small", tmp_path / "cost")
    assert read_json(tmp_path / "cost" / "measures.json") == found
    assert 0 < found["cost.p50_ms"] <= found["cost.p99_ms"]
    assert found["cost.p50_ratio"] == found["cost.p50_ms"] / found["champion.cost.p50_ms"]
    assert found["cost.weights_mib"] > found["champion.cost.weights_mib"]


def test_memory_is_that_of_every_parameter_and_buffer():
    model = build_model("dlrm_mlp", SPEC, CONFIG.model, 0)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert weights_mib(model) == pytest.approx(sum(t.nbytes for t in held.values()) / 2**20)


def test_every_request_has_the_candidates_of_the_reference_load_and_a_user_of_its_own(folders):
    model = build_model("dlrm_mlp", SPEC, CONFIG.model, 0)
    load = _load(folders["samples"], model, CONFIG.cost, 7)
    assert [(rows.requests, rows.candidates) for rows in load] == [(1, 33)] * 20
    assert len({int(rows.ts[0]) for rows in load}) > 1
    again = _load(folders["samples"], model, CONFIG.cost, 7)
    assert all((one.item == other.item).all() for one, other in zip(load, again, strict=True))


@pytest.mark.parametrize(("p99", "failed"), [(99.0, []), (101.0, ["ceiling:cost.p99_ms"])])
def test_a_model_over_its_latency_budget_is_rejected_by_that_gate(p99, failed):
    rules = CONFIG.gate.model_copy(update={"floors": {}, "ceilings": {"cost.p99_ms": 100.0}})
    evaluation = {
        "candidate": {"name": "a"},
        "champion": None,
        "confidence": 0.95,
        "measures": {"cost.p99_ms": p99},
        "slices": [],
        "reasons": {},
    }
    assert judge(rules, evaluation)["failed"] == failed


@pytest.mark.parametrize("source", ["simulation", "journey", "expedia", "qilin", "kuaisar", "logs"])
def test_every_source_gates_ranking_cost_drift_and_parity(source):
    rules = load_config(None, [f"data.source={source}"]).gate
    task = rules.primary.partition(".")[0]
    assert {f"{task}.{name}" for name in ("auc", "gauc", "qauc", "hr@5")} | {"evaluation.positives"} <= set(
        rules.floors
    )
    asked = {"cost.p99_ms", "cost.weights_mib", "drift.share", "drift.evidently_share", "parity.max_difference"}
    assert asked <= set(rules.ceilings)
