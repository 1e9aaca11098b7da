"""The verb and the step are one function: from two models or from the steps' outputs, the same decision."""

import pytest
import torch
from typer.testing import CliRunner

from models.checkpoint import load_model, save_model
from models.data import Position, Reader
from tests.evaluation.test_evaluate import trained
from tests.sample_folder import write_samples
from uniscale.artifacts import read_json
from uniscale.cli import app
from uniscale.errors import ConfigError

SETTINGS = [
    "model.embedding_dim=4",
    "model.table_rows=512",
    "model.encoder=mean",
    "model.dlrm_mlp={hidden: [16]}",
    "train.device=cpu",
    "gate.bootstrap_resamples=100",
    "cost={requests: 20, candidates: 20}",
]


def gate(*arguments, **paths):
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return CliRunner().invoke(app, ["gate", *options, *settings, *arguments])


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A model of shuffled labels judged against one that learned."""
    root = tmp_path_factory.mktemp("gate")
    samples = write_samples(root / "samples", requests_per_day=60)
    (root / "logs").mkdir()
    paths = {
        "candidate": trained(samples, root / "noise", steps=8, shuffled=1.0),
        "champion": trained(samples, root / "good", steps=30),
        "samples": samples,
        "logs": root / "logs",
    }
    return {**paths, "out": root / "out", "done": gate(**paths, out=root / "out")}


def test_a_damaged_model_is_rejected_with_exit_code_3_and_the_gates_that_saw_it(judged):
    assert judged["done"].exit_code == 3, judged["done"].output
    record = read_json(judged["out"] / "decision" / "decision.json")
    assert {"floor:click.auc", "superiority:click.gauc", "non_inferiority:click.auc"} <= set(record["failed"])
    judged_names = {gate["name"] for gate in record["gates"]}
    assert {"ceiling:cost.p99_ms", "ceiling:drift.share", "floor:click.qauc", "floor:click.hr@5"} <= judged_names
    why = {gate["name"]: gate["why"] for gate in record["gates"]}
    assert not any(
        why[name].startswith("cannot be computed") for name in ("ceiling:cost.p99_ms", "ceiling:drift.share")
    )


def test_the_outputs_of_the_steps_give_the_same_decision(judged, tmp_path):
    out = judged["out"]
    done = gate(measured=out / "evaluate", drifted=out / "drift", costs=out / "cost", out=tmp_path / "again")
    assert done.exit_code == 3
    assert read_json(tmp_path / "again" / "decision.json") == read_json(out / "decision" / "decision.json")


def test_half_of_what_is_needed_is_refused(judged, tmp_path):
    done = gate(candidate=judged["candidate"], out=tmp_path / "x")
    assert isinstance(done.exception, ConfigError)
    assert "--candidate, --champion, --samples and --logs" in str(done.exception)


def spoiled(samples, model_folder, scenario, folder):
    """A copy of a model whose first layer falls silent in one scenario, all candidates of which then score the same."""
    model = load_model(model_folder)
    first, given = model.network.backbone.mlp.first, []
    hook = first.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    reader = Reader(samples, "train", "search", 512, 0)
    _, batch = next(iter(reader.batches(Position(0, 0, 0))))
    with torch.no_grad():
        model(batch)
        hook.remove()
        (column,) = (c for c in range(given[0].shape[1]) if torch.equal(given[0][:, c], batch.scenarios[:, scenario]))
        first.linear.weight[:, column] = -1000.0
    save_model(model, folder, 0)
    return folder


def test_a_model_that_wins_and_loses_one_slice_is_held_by_that_slice_alone(tmp_path):
    samples = write_samples(tmp_path / "samples", requests_per_day=300)
    (tmp_path / "logs").mkdir()
    good = trained(samples, tmp_path / "good", steps=20)
    paths = {
        "candidate": spoiled(samples, good, 2, tmp_path / "spoiled"),
        "champion": trained(samples, tmp_path / "weak", steps=10, shuffled=0.9),
        "samples": samples,
        "logs": tmp_path / "logs",
    }
    rules = ["floors={}", "ceilings={}", "non_inferiority={click.auc: 0.01}"]
    done = gate(*(part for rule in rules for part in ("--set", f"gate.{rule}")), **paths, out=tmp_path / "out")
    record = read_json(tmp_path / "out" / "decision" / "decision.json")
    assert (done.exit_code, record["failed"]) == (3, ["slice:scenario=promotion"]), done.output
    (superiority,) = (rule for rule in record["gates"] if rule["name"] == "superiority:click.gauc")
    assert superiority["verdict"] == "pass" and superiority["numbers"]["low"] > 0
    page = (tmp_path / "out" / "decision" / "decision.html").read_text()
    assert "slice:scenario=promotion" in page
