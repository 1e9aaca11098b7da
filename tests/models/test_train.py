"""The training loop: exact resume, early stopping, errors that name their cause, the report."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.calibrate import fit_platt
from models.checkpoint import load_model
from models.curves import chart
from models.data import Position, read_rows, row_files
from models.metrics import gauc
from models.predict import predict_logits, stopping_value, validation
from models.rows import ItemVectors
from models.train import Run, train, work_folder
from tests.models.small import SMALL, small_config
from tests.sample_folder import SPEC
from uniscale.errors import ConfigError, DataError, ModelError

DROPOUT = "model.dropout=0.1"  # draws random numbers, so a resumed run must restore the generator


def weights(folder):
    return load_file(folder / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "optimiser"), [("dlrm_mlp", "adamw"), ("hhsft", "adamw"), ("est", "adamw"), ("mdl", "rmsprop")]
)
@pytest.mark.parametrize("stop", [3, 5])
def test_a_run_stopped_anywhere_ends_in_the_same_bits(name, optimiser, stop, samples, tmp_path):
    chosen = f"train.dense_optimiser={optimiser}"
    config = small_config(DROPOUT, chosen, "train.checkpoint_batches=2", "train.batch_samples=192")
    whole = train(config, samples, tmp_path / "whole", name, "entire", tmp_path / "a")
    assert whole["steps"] > stop
    with torch.random.fork_rng():
        run = Run(config, samples, name, "entire", tmp_path / "b")
        run.go(stop_before=stop)
    assert run.state.step == stop
    assert list((tmp_path / "b").glob("step-*"))
    resumed = train(config, samples, tmp_path / "resumed", name, "entire", tmp_path / "b")
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))
    assert resumed["validation"] == whole["validation"]
    assert (resumed["steps"], resumed["samples"]) == (whole["steps"], whole["samples"])
    assert not (tmp_path / "b").exists()  # nothing is left once the model is there


def test_a_model_ships_with_the_platt_scaling_of_its_validation_rows(samples, tmp_path):
    train(small_config(), samples, tmp_path / "model", "dlrm_mlp", "entire", tmp_path / "work")
    model = load_model(tmp_path / "model")
    rows = read_rows(row_files(samples, "valid", "search", SPEC), SPEC, "search", keys=("user_id", "query"))
    logits = predict_logits(model, rows, ItemVectors.load(samples, SPEC)).astype(np.float64)
    for place in range(len(SPEC.tasks)):
        fitted = fit_platt(rows.labels[:, place], logits[:, place])
        assert fitted.b != 0.0
        assert (float(model.slope[place]), float(model.intercept[place])) == pytest.approx((fitted.a, fitted.b))


@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_bits(samples, tmp_path):
    overrides = [DROPOUT, "train.checkpoint_batches=1", "train.epochs=6", "train.patience=6"]
    config = small_config(*overrides)
    train(config, samples, tmp_path / "whole", "dlrm_mlp", "entire", tmp_path / "a")
    script = (
        "import sys, torch; from pathlib import Path; from models.train import train; "
        "from uniscale.config import load_config; torch.set_num_threads(1); "
        "train(load_config(overrides=sys.argv[3:]), Path(sys.argv[1]), Path(sys.argv[2]) / 'model', 'dlrm_mlp', "
        "'entire', Path(sys.argv[2]))"
    )
    work = tmp_path / "b"
    process = subprocess.Popen([sys.executable, "-c", script, str(samples), str(work), *SMALL, *overrides])
    deadline = time.monotonic() + 120
    while not list(work.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (work / "model").exists()
    train(config, samples, tmp_path / "resumed", "dlrm_mlp", "entire", work)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))


def test_a_checkpoint_of_another_configuration_is_not_resumed(samples, tmp_path):
    with torch.random.fork_rng():
        Run(small_config("train.checkpoint_batches=1"), samples, "dlrm_mlp", "entire", tmp_path).go(stop_before=2)
        other = Run(small_config("train.checkpoint_batches=1", "seed=8"), samples, "dlrm_mlp", "entire", tmp_path)
        other.go(stop_before=0)
    assert other.state.step == 0


def test_the_model_written_is_the_best_epochs_and_its_report_says_what_it_cost(samples, tmp_path):
    config = small_config("train.epochs=4")
    report = train(config, samples, tmp_path / "model", "dlrm_mlp", "entire", tmp_path / "work")
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    assert card["training"] == json.loads(json.dumps(report))
    curves = json.loads((tmp_path / "model" / "curves.json").read_text())
    values = [epoch["click"]["gauc"] for epoch in curves["epochs"]]
    assert report["best_epoch"] == int(np.argmax(values)) + 1
    rows = read_rows(row_files(samples, "valid", "search", SPEC), SPEC, "search", keys=("user_id", "query"))
    logits = predict_logits(load_model(tmp_path / "model"), rows, ItemVectors.load(samples, SPEC))
    assert validation(rows.labels, logits, rows)["click"]["gauc"] == pytest.approx(max(values), abs=1e-9)
    assert curves["steps"][0]["click"] > 0
    assert report["parameters"]["embedding"] == 4 * (1 + 64 * 8)  # eight tables of 64 rows, and the padding row
    assert report["samples_per_second"] > 0
    assert 0 < report["mfu"] < report["mfu_of_passes"]
    assert report["next_batch"] is None
    assert set(report["seconds"]) == {"data", "forward", "backward", "optimiser", "validation"}
    assert report["forward_flops_per_sample"] > 2 * 16 * 8
    page = (tmp_path / "model" / "curves.html").read_text()
    assert page.count("<svg") == 2
    assert "click gauc" in page
    assert "Where the time went" in page and f"{report['mfu']:.1%}" in page


def test_training_stops_after_so_many_epochs_without_a_better_one(samples, tmp_path):
    # A step of almost nothing leaves the validation measure where it is after the first epoch.
    config = small_config(
        "train.epochs=9",
        "train.patience=2",
        "train.learning_rate=1e-12",
        "train.embedding_learning_rate=1e-12",
    )
    report = train(config, samples, tmp_path / "model", "dlrm_mlp", "search", tmp_path / "work")
    assert (report["epochs"], report["best_epoch"]) == (3, 1)


def test_sparse_reset_starts_every_epoch_from_the_first_tables_with_the_dense_part_carried_on(samples, tmp_path):
    config = small_config("train.sparse_reset=true", "train.epochs=3", "train.patience=3")
    with torch.random.fork_rng():
        run = Run(config, samples, "dlrm_mlp", "entire", tmp_path)
        table, dense = run.model.inputs.tables.weight, run.model.network.head.linear.weight
        start, seen = table.detach().clone(), []
        batches = run.reader.batches

        def recorded(position):
            state = run.optimisers.sparse.state[table]["sum"]
            seen.append((table.detach().clone(), state.clone(), dense.detach().clone()))
            return batches(position)

        run.reader.batches = recorded
        run.go()
    assert len(seen) == 3
    for tables, accumulated, _ in seen:
        assert torch.equal(tables, start)
        assert not accumulated.any()
    assert not torch.equal(seen[1][2], seen[0][2])
    assert not torch.equal(seen[2][2], seen[1][2])
    assert run.report()["sparse"] == {"start": "random", "reset_each_epoch": True}


def test_tables_start_from_another_model_and_resets_return_to_them_after_a_resume(samples, tmp_path):
    train(small_config(), samples, tmp_path / "champion", "dlrm_mlp", "search", tmp_path / "w")
    start = f"train.sparse_start={tmp_path / 'champion'}"
    config = small_config("train.sparse_reset=true", start, "train.checkpoint_batches=1", "train.batch_samples=192")
    with torch.random.fork_rng():
        run = Run(config, samples, "hhsft", "entire", tmp_path / "b")
        assert torch.equal(run.model.inputs.tables.weight, load_model(tmp_path / "champion").inputs.tables.weight)
        first_of_second_epoch = 1 + len(list(run.reader.batches(Position(0, 0, 0))))
        run.go(stop_before=first_of_second_epoch)
    whole = train(config, samples, tmp_path / "whole", "hhsft", "entire", tmp_path / "a")
    resumed = train(config, samples, tmp_path / "resumed", "hhsft", "entire", tmp_path / "b")
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))
    assert whole["sparse"] == resumed["sparse"] == {"start": str(tmp_path / "champion"), "reset_each_epoch": True}
    with pytest.raises(ModelError, match=r"table .* is 32 rows of 4 here and 64 of 4 in the model to start from"):
        Run(small_config(start, "model.table_rows=32"), samples, "hhsft", "entire", tmp_path / "c")
    with pytest.raises(ModelError, match=r"train\.sparse_start = 'nowhere' holds no model\.safetensors"):
        train(small_config("train.sparse_start=nowhere"), samples, tmp_path / "m", "hhsft", "entire", tmp_path / "c")


def test_validation_measures_are_those_of_their_definitions(samples):
    rows = read_rows(row_files(samples, "test", "search", SPEC), SPEC, "search", keys=("user_id", "query"))
    logits = np.random.default_rng(0).normal(size=rows.labels.shape).astype(np.float32)
    pairs = list(zip(rows.keys["user_id"].to_pylist(), rows.keys["query"].to_pylist(), strict=True))
    codes = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    groups = np.array([codes[pair] for pair in pairs])[rows.request_of]
    found = validation(rows.labels, logits, rows)["click"]
    assert found["gauc"] == pytest.approx(gauc(rows.labels[:, 0], logits[:, 0], groups))
    probability = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))
    y = rows.labels[:, 0]
    assert found["log_loss"] == pytest.approx(-np.mean(y * np.log(probability) + (1 - y) * np.log1p(-probability)))


def test_early_stopping_falls_back_to_auc_and_refuses_one_class():
    assert stopping_value({"click": {"gauc": 0.6, "auc": 0.7}}, "click") == ("gauc", 0.6)
    assert stopping_value({"click": {"gauc": None, "auc": 0.7}}, "click") == ("auc", 0.7)
    with pytest.raises(DataError, match="one class of click only"):
        stopping_value({"click": {"gauc": None, "auc": None}}, "click")


def test_a_loss_that_is_not_a_number_names_the_batch_and_the_feature_and_keeps_the_checkpoint(samples, tmp_path):
    config = small_config("train.checkpoint_batches=1")
    with torch.random.fork_rng():
        run = Run(config, samples, "dlrm_mlp", "entire", tmp_path)
        run.go(stop_before=2)
        kept = sorted(tmp_path.glob("step-*"))
        run.reader.first_buffer().candidate_numbers[:, 1] = np.inf
        with pytest.raises(ModelError, match=r"loss is nan at epoch 1, .*batch 3: item_clicks_7d is not finite"):
            run.go()
    assert sorted(tmp_path.glob("step-*")) == kept


def test_weights_that_diverge_are_not_blamed_on_an_input(samples, tmp_path):
    with torch.random.fork_rng():
        run = Run(small_config(), samples, "dlrm_mlp", "entire", tmp_path)
        with torch.no_grad():
            run.model.network.head.linear.weight.fill_(torch.nan)
        with pytest.raises(ModelError, match=r"no input is at fault.*last good checkpoint: none yet"):
            run.go()


def test_an_input_of_the_validation_rows_is_named_with_its_batch_and_the_checkpoint_stays(samples, tmp_path):
    with torch.random.fork_rng():
        run = Run(small_config("train.checkpoint_batches=1"), samples, "dlrm_mlp", "search", tmp_path)
        run.valid.candidate_numbers[-1, 0] = np.inf
        with pytest.raises(
            ModelError, match=r"scores of batch 1 of the rows of 2026-01-\d\d.*: item_price is not finite"
        ):
            run.go()
    assert len(list(tmp_path.glob("step-*"))) == 1


def test_each_training_has_a_work_folder_of_its_own(samples, tmp_path):
    config = small_config()
    folders = {
        work_folder(tmp_path, config, samples, "hhsft", "entire"),
        work_folder(tmp_path, config, samples, "hhsft", "search"),
        work_folder(tmp_path, config, samples, "dlrm_mlp", "entire"),
        work_folder(tmp_path, small_config("seed=9"), samples, "hhsft", "entire"),
    }
    assert len(folders) == 4
    assert work_folder(tmp_path, small_config(), samples, "hhsft", "entire") in folders


def test_wrong_requests_are_refused_before_any_work(samples, tmp_path):
    with pytest.raises(ModelError, match="model 'hhsf' is unknown; did you mean hhsft"):
        train(small_config(), samples, tmp_path / "m", "hhsf", "entire", tmp_path / "w")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"train.device = 'cuda'"):
            train(small_config("train.device=cuda"), samples, tmp_path / "m", "hhsft", "entire", tmp_path / "w")
    assert not (tmp_path / "m").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_trains_in_every_precision(precision, samples, tmp_path):
    config = small_config("train.device=cuda", f"train.precision={precision}")
    report = train(config, samples, tmp_path / "model", "hhsft", "entire", tmp_path / "work")
    assert report["device"] == "cuda"
    assert report["validation"]["click"]["auc"] > 0.5


def test_a_chart_draws_every_series_inside_its_frame():
    drawn = chart({"loss": [(0, 2.0), (10, 1.0)], "one point": [(5, 1.5)]}, "step")
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 3
    assert "48.0,48.0 592.0,212.0" in drawn  # highest value at the left margin, lowest at the right
    assert chart({"empty": []}, "step") == "<p>no points</p>"
