"""A training in a process a device: the launcher's processes write one model, and an error of theirs is one message."""

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
