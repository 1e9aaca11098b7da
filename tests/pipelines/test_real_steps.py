"""Sweep, backfill and monitoring with their own steps real, on samples that are handed over in place of Spark's."""

import warnings

import pytest
from kfp import components, local

from models.train import train
from tests.models.small import SMALL
from tests.pipelines.hollow import Body, hollow
from tests.sample_folder import write_samples
from uniscale.artifacts import read_json
from uniscale.config import load_config
from uniscale.registry import Registry

CONFIG = load_config(
    None,
    [*SMALL, "train.epochs=1", "gate.bootstrap_resamples=100", "drift.sample_rows=500", "drift.reference=trailing"],
)
SECTIONS = {name: getattr(CONFIG, name).model_dump_json() for name in ("model", "train", "gate", "drift", "retraining")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("samples") / "s", requests_per_day=40, days=8, items=40)


@pytest.fixture(scope="module")
def registry(samples, tmp_path_factory, empty_registry):
    """A registry with a champion that was trained on these samples."""
    root = tmp_path_factory.mktemp("registry")
    train(CONFIG, samples, root / "model", "dlrm_mlp", "search", root / "work")
    store = Registry(empty_registry(root / "registry"), "ranker")
    store.promote(store.register(root / "model", run_id="r0").number, force=True, reason="a test")
    return root / "registry"


def execute(package, samples, root, real, answers, **parameters):
    """Run a compiled pipeline with some steps real; gives its summary."""
    hand_over = Body(f"import shutil\nshutil.copytree({str(samples)!r}, rows.path)")
    ir = hollow(package.read_text(), {"samples": hand_over, **answers}, real)
    pipeline = components.load_component_from_text(ir)
    known = pipeline.component_spec.inputs
    given = {key: value for key, value in SECTIONS.items() if key in known}
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root / "out"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the runner's about images
        pipeline(**given, runs=str(root), run_id="r1", seed=CONFIG.seed, **parameters)
    assert "<h1>" in (root / "r1" / "report.html").read_text()
    return read_json(root / "r1" / "summary.json")


def test_a_sweep_tabulates_its_trials(compiled, samples, tmp_path) -> None:
    systems = ["dcnv2@search,model.dcnv2.rank=2", "dlrm_mlp@entire"]
    real = {"base", "trial", "comparison"}
    work = str(tmp_path / "work")
    found = execute(compiled("sweep"), samples, tmp_path, real, {}, systems=systems, work=work)["comparison"]
    assert [system["label"] for system in found["systems"]] == ["dlrm_mlp@search", *systems]
    assert all(system["differences"]["click.gauc"] for system in found["systems"][1:]) and found["not_run"] == {}


def test_a_backfill_measures_the_champion_and_its_drift_on_every_day(compiled, samples, registry, tmp_path) -> None:
    history = tmp_path / "drift"
    model = {"registry": str(registry), "registered_model": "ranker"}
    real = {"score", "drift", "backfilled"}
    answers = {"days": ["2026-01-11", "2026-01-12"], "resolve": "1"}  # resolve itself runs in the next test
    found = execute(compiled("backfill"), samples, tmp_path, real, answers, **model, history=str(history))
    assert len(found["days"]) == 2  # the samples handed over are the same, so both end with the same day
    assert all(0 < day["measures"]["click.auc"] < 1 for day in found["days"])
    assert (history / f"{found['days'][0]['window'][1]}.json").exists()


def test_monitoring_says_what_it_saw_and_whether_to_train(compiled, samples, registry, tmp_path) -> None:
    model = {"registry": str(registry), "registered_model": "ranker"}
    real = {"check", "resolve", "score", "drift", "skew", "retrain", "watched"}
    days = {"served": ["2026-01-11", "2026-01-12"]}
    where = {name: str(tmp_path / name) for name in ("book", "history", "serving_log", "live_logs")}
    found = execute(compiled("monitoring"), samples, tmp_path, real, days, **model, **where)
    assert found["drift"]["verdict"] in ("quiet", "warn", "drift") and found["experiments"] == {}
    assert "no log of served features" in found["skew"]["why_not"]
    choice = found["retraining"]
    assert not choice["train"] and "nothing asks for it: 0 days old" in choice["why"]
    assert choice["new_days"] == days["served"] and len(choice["trained"]) == 1
    assert len(list((tmp_path / "history").glob("*.json"))) == 1
