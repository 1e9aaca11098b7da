"""Evaluation end to end: inputs stay untouched, numbers follow from its own predictions, and so do the verdicts."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models import metrics
from models.calibrate import sigmoid
from models.cells import group_codes
from models.checkpoint import load_model, read_card, save_model
from models.data import Position, Reader, in_order, read_rows, row_files
from models.embeddings import RowwiseAdagrad
from models.evaluate import evaluate
from models.gate import decide
from models.rows import ItemVectors
from models.zoo import build_model
from tests.sample_folder import SPEC, write_samples
from uniscale.artifacts import content_hash, read_json, write_json
from uniscale.config import load_config
from uniscale.errors import DataError, ModelError

CONFIG = load_config(
    overrides=[
        "model.embedding_dim=4",
        "model.table_rows=512",
        "model.encoder=mean",
        "model.dlrm_mlp={hidden: [16]}",
        "train.device=cpu",
        "gate.bootstrap_resamples=200",
        "gate.floors={click.auc: 0.6, click.gauc: 0.55}",
        "gate.ceilings={click.ece: 0.1, parity.max_difference: 0.01}",
        "gate.non_inferiority={click.auc: 0.01}",
        "gate.slices={by: [scenario, user_cohort, item_cohort], tolerance: 0.05, min_positives: 50}",
    ]
)


def trained(samples, folder, steps, shuffled=0.0, seed=0):
    """A small model after some steps on the training rows; of a share of them the labels are shuffled."""
    torch.set_num_threads(1)
    reader = Reader(samples, "train", "search", 512, seed)
    model = build_model("dlrm_mlp", reader.spec, CONFIG.model, seed)
    model.fit(reader.first_buffer())
    tables = [p for name, p in model.named_parameters() if "tables" in name]
    dense = [p for name, p in model.named_parameters() if "tables" not in name]
    assert tables
    optimisers = [torch.optim.AdamW(dense, lr=0.01), RowwiseAdagrad(tables, lr=0.1)]
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while done < steps:
        for _, batch in reader.batches(Position(done, 0, 0)):
            labels = batch.labels
            if shuffled:
                other = labels[torch.randperm(len(labels), generator=generator)]
                labels = torch.where(torch.arange(len(labels))[:, None] % 10 < 10 * shuffled, other, labels)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), labels)
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            done += 1
    save_model(model.eval(), folder, seed)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Samples, a model that learned, one that did not, and their evaluations against each other."""
    root = tmp_path_factory.mktemp("evaluation")
    samples = write_samples(root / "samples", requests_per_day=120)
    good = trained(samples, root / "good", steps=40)
    noise = trained(samples, root / "noise", steps=12, shuffled=1.0)
    return {
        "root": root,
        "samples": samples,
        "good": good,
        "noise": noise,
        "before": {name: content_hash(root / name) for name in ("good", "noise", "samples")},
        "good over noise": evaluate(CONFIG, samples, good, noise, root / "good over noise"),
        "noise over good": evaluate(CONFIG, samples, noise, good, root / "noise over good"),
    }


def test_inputs_stay_as_they_are_and_the_candidate_is_copied_as_judged(world):
    for name, before in world["before"].items():
        assert content_hash(world["root"] / name) == before
    assert content_hash(world["root"] / "good over noise" / "model") == world["before"]["good"]


def test_measures_follow_from_the_predictions(world):
    folder = world["root"] / "good over noise"
    table = pq.read_table(folder / "predictions.parquet")
    found = world["good over noise"]["measures"]
    assert found == read_json(folder / "measures.json")["measures"]
    groups = group_codes(table["user_id"], table["query"])
    requests = group_codes(table["request_id"])
    for task in ("click", "conversion"):
        labels = table[f"{task}_label"].to_numpy()
        for prefix, column in (("", task), ("champion.", f"champion_{task}")):
            scores = table[column].to_numpy()
            assert found[f"{prefix}{task}.auc"] == pytest.approx(metrics.auc(labels, scores))
            assert found[f"{prefix}{task}.gauc"] == pytest.approx(metrics.gauc(labels, scores, groups))
            hits = metrics.hit_rate(labels, scores, requests, 5).value
            assert found[f"{prefix}{task}.hr@5"] == pytest.approx(hits)
        difference = found[f"difference.{task}.gauc"]
        assert difference["value"] == pytest.approx(found[f"{task}.gauc"] - found[f"champion.{task}.gauc"])
        assert difference["low"] <= difference["value"] <= difference["high"]
    assert found["evaluation.rows"] == table.num_rows
    assert found["evaluation.positives"] == table["click_label"].to_numpy().sum()


def test_rows_are_the_exposed_ones_of_the_target_domain_with_in_domain_labels(world):
    table = pq.read_table(world["root"] / "good over noise" / "predictions.parquet")
    rows = read_rows(row_files(world["samples"], "test", "search", SPEC), SPEC, "search", ("request_id",))
    assert table["item"].to_pylist() == rows.item.tolist()
    assert table["click_label"].to_pylist() == rows.labels[:, 0].tolist()
    assert set(table["domain"].to_pylist()) == {"search"}
    assert sorted(set(table["day"].to_pylist())) == world["good over noise"]["splits"]["test"]
    folder = world["root"] / "good over noise" / "model"
    scores = torch.cat(
        [load_model(folder).score(b) for b in in_order(rows, ItemVectors.load(world["samples"], SPEC), 300)]
    )
    np.testing.assert_allclose(table["click"].to_numpy(), scores[:, 0].numpy(), rtol=1e-5)


def test_slices_cover_the_rows_and_say_what_they_hold(world):
    table = world["good over noise"]["slices"]
    rows = world["good over noise"]["measures"]["evaluation.rows"]
    for by in ("scenario", "user_cohort", "item_cohort"):
        parts = [row for row in table if row["by"] == by]
        assert sum(row["rows"] for row in parts) == rows  # scenarios of these samples do not overlap
        assert all(row["difference"]["low"] <= row["difference"]["high"] for row in parts if row["difference"])


def test_half_precision_weights_change_the_scores_little_but_do(world):
    found = world["good over noise"]["measures"]
    assert 0 < found["parity.max_difference"] < 0.01
    assert found["parity.rank_correlation"] > 0.999
    assert found["parity.auc_difference"] < 0.001


def test_weights_that_overflow_in_half_precision_fail_the_parity_gate(world, tmp_path):
    model = load_model(world["good"])
    with torch.no_grad():
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "tables" not in name]
        matrices[0][0, 0] = 1e5
    save_model(model, tmp_path / "huge", 0)
    result = evaluate(CONFIG, world["samples"], tmp_path / "huge", None, tmp_path / "e")
    assert result["measures"]["parity.max_difference"] is None
    assert decide(CONFIG.gate, tmp_path / "e" / "measures.json", tmp_path / "gate") == "reject"
    gate = next(g for g in read_json(tmp_path / "gate" / "decision.json")["gates"] if "parity" in g["name"])
    assert gate["why"] == "cannot be computed: weights beyond 65504 overflow in half precision"


def test_other_domains_are_measured_on_their_searchified_rows(world):
    found = world["good over noise"]["measures"]
    assert {key for key in found if key.startswith("domain.")} == {
        f"domain.{domain}.click.{name}" for domain in ("recommendation", "ads") for name in ("auc", "gauc")
    }


def test_a_model_that_learned_is_promoted_over_one_that_did_not(world, tmp_path):
    assert decide(CONFIG.gate, world["root"] / "good over noise" / "measures.json", tmp_path / "gate") == "promote"


def test_a_model_of_shuffled_labels_is_rejected_and_the_gates_say_why(world, tmp_path):
    assert decide(CONFIG.gate, world["root"] / "noise over good" / "measures.json", tmp_path / "gate") == "reject"
    failed = read_json(tmp_path / "gate" / "decision.json")["failed"]
    assert {"floor:click.auc", "non_inferiority:click.auc", "superiority:click.gauc"} <= set(failed)
    assert "floor:click.auc" in (tmp_path / "gate" / "decision.html").read_text().split("</header>")[0]


def test_a_model_against_itself_ties_everywhere_and_is_not_superior(world, tmp_path):
    result = evaluate(
        CONFIG, world["samples"], world["good"], world["root"] / "good over noise" / "model", tmp_path / "e"
    )
    for key, difference in result["measures"].items():
        if key.startswith("difference."):
            assert (difference["low"], difference["high"]) == (0, 0)
    decide(CONFIG.gate, tmp_path / "e" / "measures.json", tmp_path / "gate")
    assert read_json(tmp_path / "gate" / "decision.json")["failed"] == ["superiority:click.gauc"]


def test_a_first_model_is_judged_alone(world, tmp_path):
    result = evaluate(CONFIG, world["samples"], world["good"], None, tmp_path / "e")
    assert result["champion"] is None
    assert not [key for key in result["measures"] if key.startswith(("champion.", "difference."))]
    assert decide(CONFIG.gate, tmp_path / "e" / "measures.json", tmp_path / "gate") == "promote"


def test_the_champion_may_read_fewer_features_but_must_answer_the_same_tasks(world, tmp_path):
    card = read_card(world["noise"])
    fewer = SPEC.as_json() | {"tasks": ["click"]}
    (tmp_path / "other").mkdir()
    write_json(tmp_path / "other" / "model.json", card | {"spec": fewer})
    with pytest.raises(ModelError):
        evaluate(CONFIG, world["samples"], world["good"], tmp_path / "other", tmp_path / "e")
    narrow = [f for f in SPEC.features if f.name != "item_price"]
    spec = type(SPEC)(**{**SPEC.__dict__, "features": tuple(narrow)})
    save_model(build_model("dlrm_mlp", spec, CONFIG.model, 0).eval(), tmp_path / "narrow", 0)
    result = evaluate(CONFIG, world["samples"], world["good"], tmp_path / "narrow", tmp_path / "e")
    assert result["measures"]["difference.click.auc"]["low"] > 0


def test_samples_without_test_rows_are_refused(world, tmp_path):
    samples = tmp_path / "samples"
    samples.mkdir()
    for name in ("rows", "items.parquet", "spec.json"):
        (samples / name).symlink_to(world["samples"] / name)
    manifest = read_json(world["samples"] / "manifest.json")
    manifest["splits"]["test"] = ["2030-01-01", "2030-01-02"]
    write_json(samples / "manifest.json", manifest)
    with pytest.raises(DataError, match="no rows for test"):
        evaluate(CONFIG, samples, world["good"], None, tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_models_are_named_by_the_content_a_registry_knows_them_by(world):
    result = world["good over noise"]
    assert result["champion"]["hash"] == content_hash(world["noise"])
    assert result["candidate"]["hash"] == content_hash(world["root"] / "good over noise" / "model")


def test_without_a_truth_nobody_scores_what_was_not_shown(world, tmp_path, capsys):
    evaluate(CONFIG, world["samples"], world["good"], None, tmp_path / "e")
    shown = world["good over noise"]["measures"]["evaluation.rows"]
    files = row_files(world["samples"], "test", "entire", SPEC)
    others = sum(file.candidates for file in files if file.path.parent.name != "domain=search")
    assert f"scores: done, {2 * shown + others:,} rows" in capsys.readouterr().out  # shown: full and half


def test_sigmoid_does_not_overflow():
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
