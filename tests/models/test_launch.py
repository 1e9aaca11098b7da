"""A training in a process a device: the launcher's processes write one model, an error of theirs is one message, and
they end with the step."""

import os
import signal
import threading
import time

import psutil
import pytest

from models.launch import train_on_all
from tests.models.small import small_config
from uniscale.artifacts import read_json
from uniscale.errors import ModelError

SETTINGS = ("train.device=cpu", "train.epochs=1", "train.batch_samples=512")


def test_two_processes_write_one_model(samples, tmp_path):
    train_on_all(small_config(*SETTINGS), samples, tmp_path / "model", "dlrm_mlp", "search", tmp_path / "work", 2)
    assert read_json(tmp_path / "model" / "model.json")["training"]["processes"] == 2
    assert not (tmp_path / "work").exists()


def test_what_stops_a_process_is_said(samples, tmp_path):
    with pytest.raises(ModelError, match=r"in 2 processes ended with 1: train\.next_batch keeps predictions in order"):
        train_on_all(
            small_config(*SETTINGS, "train.next_batch=true"),
            samples,
            tmp_path / "model",
            "dlrm_mlp",
            "search",
            tmp_path / "work",
            2,
        )
    assert not (tmp_path / "model").exists()


def test_a_step_that_is_told_to_end_ends_its_processes_first(samples, tmp_path):
    work, before, workers = tmp_path / "work", signal.getsignal(signal.SIGTERM), []
    others = psutil.Process().children(recursive=True)  # a session of Spark that an earlier test began

    def tell():
        while not list(work.glob("step-*")):
            time.sleep(0.05)
        workers.extend(each for each in psutil.Process().children(recursive=True) if each not in others)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    config = small_config("train.device=cpu", "train.epochs=50", "train.patience=50", "train.checkpoint_batches=1")
    with pytest.raises(SystemExit, match="143"):
        train_on_all(config, samples, tmp_path / "model", "dlrm_mlp", "search", work, 2)
    assert len(workers) >= 3 and not any(process.is_running() for process in workers)
    assert not (tmp_path / "model").exists() and signal.getsignal(signal.SIGTERM) is before
