"""Two processes train as one does at the same global batch, and resume."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from models.distributed import World
from models.train import train
from tests.models.small import SMALL, small_config

SETTINGS = ("train.batch_samples=64", "train.checkpoint_batches=7", "train.ema=0.9", "train.learning_rate=0.003")
SCRIPT = """
import sys, torch
from pathlib import Path
from models.train import Run, resolve_device, train
from models.distributed import world_of
from uniscale.config import load_config
torch.set_num_threads(1)
samples, out, work, stop, *settings = sys.argv[1:]
config = load_config(overrides=settings)
if int(stop):
    with world_of(resolve_device("cpu")) as world:
        Run(config, Path(samples), "hhsft", "entire", Path(work), world).go(stop_before=int(stop))
else:
    train(config, Path(samples), Path(out), "hhsft", "entire", Path(work))
"""


def test_shares_cover_a_batch_and_one_without_a_share_weighs_nothing():
    requests = np.arange(5)
    shares = [World(rank, 3).share(requests) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == requests.tolist()
    assert World(2, 3).share(requests[:2]).tolist() == [0]


@pytest.fixture(scope="module")
def two(samples, tmp_path_factory):
    """`two(shards)`: a training in two processes that was stopped and resumed: its folder, and what it said."""
    root = tmp_path_factory.mktemp("two")
    script = root / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    known = {}

    def run(shards):
        if shards not in known:
            out, work = root / shards, root / f"work-{shards}"
            for until in (10, 0):
                settings = (*SMALL, *SETTINGS, f"train.shard_tables={shards}")
                command = [*launch, str(samples), str(out), str(work), str(until), *settings]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                assert done.returncode == 0, done.stderr[-3000:]
            assert not work.exists()
            known[shards] = out, done.stdout
        return known[shards]

    return run


def curves(folder):
    """The points of the training loss, and the measures of the first task after each epoch."""
    found = json.loads((folder / "curves.json").read_text())
    return found["steps"], [epoch["click"] for epoch in found["epochs"]]


def test_two_processes_that_were_stopped_and_resumed_give_the_loss_curve_of_one(samples, two, tmp_path):
    one = train(small_config(*SETTINGS), samples, tmp_path / "one", "hhsft", "entire", tmp_path / "a")
    folder, said = two("false")
    report = json.loads((folder / "model.json").read_text())["training"]
    assert (report["processes"], report["samples"], report["steps"]) == (2, one["samples"], one["steps"])
    assert "going on from step 7" in said
    (steps, epochs), (same_steps, same_epochs) = curves(tmp_path / "one"), curves(folder)
    assert len(steps) > 1
    for point, same in zip(steps, same_steps, strict=True):
        assert same == pytest.approx(point, rel=1e-3)
    for epoch, same in zip(epochs, same_epochs, strict=True):
        assert same["log_loss"] == pytest.approx(epoch["log_loss"], rel=1e-3)
    table, same = (load_file(each / "model.safetensors")["inputs.tables.weight"] for each in (tmp_path / "one", folder))
    assert float((same - table).abs().mean()) < 1e-4 < float(table.abs().mean())  # Adagrad enlarges what is almost 0


@pytest.mark.slow
def test_sharded_tables_train_as_replicated_ones(two):
    (replicated, _), (sharded, said) = two("false"), two("true")
    assert "going on from step 7" in said
    for points, same_points in zip(curves(replicated), curves(sharded), strict=True):
        for point, same in zip(points, same_points, strict=True):
            assert same == pytest.approx(point, rel=1e-6)
    reports = [json.loads((folder / "model.json").read_text())["training"] for folder in (replicated, sharded)]
    assert reports[0]["parameters"] == reports[1]["parameters"]
    for file in ("model.safetensors", "optimiser.safetensors"):
        one, other = (load_file(folder / file) for folder in (replicated, sharded))
        assert one.keys() == other.keys()
        for name in one.keys() - {"rng.cpu"}:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=1e-6, err_msg=name)
