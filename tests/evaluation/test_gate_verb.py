"""The verb and the step are one function: from two models or from the steps' outputs, the same decision."""

import pytest
from typer.testing import CliRunner

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
        "candidate": trained(samples, root / "noise", steps=8, shuffle_labels=True),
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
