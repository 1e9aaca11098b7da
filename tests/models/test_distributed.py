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


def test_two_processes_that_were_stopped_and_resumed_give_the_loss_curve_of_one(samples, tmp_path):
    config = small_config(*SETTINGS)
    one = train(config, samples, tmp_path / "one", "hhsft", "entire", tmp_path / "a")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    places = [str(samples), str(tmp_path / "two"), str(tmp_path / "b")]
    for until in (10, 0):
        command = [*launch, *places, str(until), *SMALL, *SETTINGS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two" / "model.json").read_text())["training"]
    assert (two["processes"], two["samples"], two["steps"]) == (2, one["samples"], one["steps"])
    assert "going on from step 7" in done.stdout
    of_one, of_two = (json.loads((tmp_path / name / "curves.json").read_text()) for name in ("one", "two"))
    assert len(of_one["steps"]) > 1
    for point, same in zip(of_one["steps"], of_two["steps"], strict=True):
        assert same == pytest.approx(point, rel=1e-3)
    for epoch, same in zip(of_one["epochs"], of_two["epochs"], strict=True):
        assert same["click"]["log_loss"] == pytest.approx(epoch["click"]["log_loss"], rel=1e-3)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    table, same = (each["inputs.tables.weight"] for each in weights)
    assert float((same - table).abs().mean()) < 1e-4 < float(table.abs().mean())  # Adagrad enlarges what is almost 0
    assert not (tmp_path / "b").exists()
