"""Checkpoints of a running training: everything that makes a resumed run end in the same bits; no pickles.

A checkpoint is a folder `step-00000042` with `state.json`, `model.safetensors` and `optimiser.safetensors`, written
whole or not at all; the newest one counts. `best.safetensors` beside them holds the best weights so far.
"""

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.data import Position
from models.optimisers import Optimisers
from uniscale.artifacts import atomic_folder, read_json, write_json

START = Position(0, 0, 0)


@dataclass
class State:
    """Where a training stands; JSON-able."""

    fingerprint: str
    position: Position = START
    step: int = 0
    samples: int = 0
    best: float | None = None
    best_epoch: int = -1
    stale_epochs: int = 0  # epochs since the best one
    seconds: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)  # training loss along the steps
    epochs: list[dict[str, Any]] = field(default_factory=list)  # validation after each epoch


def save_checkpoint(work: Path, state: State, model: nn.Module, optimisers: Optimisers) -> None:
    """Write a checkpoint, then remove the older ones."""
    folder = Path(work) / f"step-{state.step:08d}-{state.position.epoch}"
    with atomic_folder(folder) as scratch:
        save_file(_plain(model.state_dict()), scratch / "model.safetensors")
        tensors = _plain(optimisers.tensors()) | {"rng.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        save_file(tensors, scratch / "optimiser.safetensors")
        write_json(scratch / "state.json", {**asdict(state), "scaler": optimisers.scaler.state_dict()})
    for other in _checkpoints(work):
        if other != folder:
            shutil.rmtree(other)


def load_checkpoint(work: Path, fingerprint: str, model: nn.Module, optimisers: Optimisers) -> State:
    """Bring model, optimisers and random generators back to the newest checkpoint of the same run.

    A checkpoint of another configuration, other samples or other source code is not this run's: it starts anew.
    """
    found = _checkpoints(work)
    raw: dict[str, Any] = read_json(found[-1] / "state.json") if found else {"fingerprint": None}
    if raw["fingerprint"] != fingerprint:
        return State(fingerprint)
    model.load_state_dict(load_file(found[-1] / "model.safetensors"))
    tensors = load_file(found[-1] / "optimiser.safetensors")
    torch.set_rng_state(tensors.pop("rng.cpu"))
    cuda = tensors.pop("rng.cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    optimisers.restore(tensors, raw.pop("scaler"))
    return State(**{**raw, "position": Position(*raw["position"])})


def save_best(work: Path, model: nn.Module) -> None:
    """Keep the model's present weights as the best."""
    target = Path(work) / "best.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(".partial")
    save_file(_plain(model.state_dict()), scratch)
    os.replace(scratch, target)


def load_best(work: Path, model: nn.Module) -> None:
    """Put the best weights back into the model."""
    model.load_state_dict(load_file(Path(work) / "best.safetensors"))


def _checkpoints(work: Path) -> list[Path]:
    return sorted(Path(work).glob("step-*"))


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
