"""Checkpoints of a running training: everything that makes a resumed run end in the same bits; no pickles.

A checkpoint is a folder `step-00000042` with `state.json`, `model.safetensors` and `optimiser.safetensors`, written
whole or not at all; the newest one counts. `best.safetensors` beside them holds the best weights so far.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.data import Position
from models.distributed import World
from models.optimisers import Optimisers
from models.ranking import RankingModel
from uniscale.artifacts import atomic_folder, read_json, write_json

START = Position(0, 0, 0)
TABLE = "inputs.tables.weight"  # of a model's weights


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


def save_checkpoint(
    work: Path, state: State, model: RankingModel, optimisers: Optimisers, more: Mapping[str, Tensor], world: World
) -> None:
    """Write a checkpoint with more tensors beside the optimisers', then remove the older ones; rank 0 writes.

    Every rank calls it: each has random generators of its own.
    """
    drawn = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        drawn["cuda"] = torch.cuda.get_rng_state()
    device = optimisers.table.device
    generators = {
        f"rng.{name}.{rank}": one.cpu()
        for name, own in drawn.items()
        for rank, one in enumerate(world.gather(own.to(device)))
    }
    weights, kept = whole_weights(model), {**optimisers.tensors(), **more, **generators}
    if world.rank == 0:
        _write(work, {**asdict(state), "scaler": optimisers.scaler.state_dict()}, weights, kept)
    world.wait()


def whole_weights(model: RankingModel) -> dict[str, Tensor]:
    """What `state_dict` gives, with the tables of all ranks, which all call it."""
    tables = model.inputs.tables
    return {**model.state_dict(), TABLE: tables.gather(tables.weight.detach())}


def _write(work: Path, state: dict[str, Any], weights: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
    folder = Path(work) / f"step-{state['step']:08d}-{state['position'].epoch}"
    with atomic_folder(folder) as scratch:
        save_file(_plain(weights), scratch / "model.safetensors")
        save_file(_plain(kept), scratch / "optimiser.safetensors")
        write_json(scratch / "state.json", state)
    for other in _checkpoints(work):
        if other != folder:
            shutil.rmtree(other)


def load_checkpoint(
    work: Path, fingerprint: str, model: nn.Module, optimisers: Optimisers, world: World
) -> tuple[State, dict[str, Tensor]]:
    """Bring model, optimisers and random generators back to the newest checkpoint of the same run.

    A checkpoint of another configuration, other samples or other source code is not this run's: it starts anew.

    Returns:
        The state, and the tensors that were saved beside the optimisers'.
    """
    found = _checkpoints(work)
    raw: dict[str, Any] = read_json(found[-1] / "state.json") if found else {"fingerprint": None}
    if raw["fingerprint"] != fingerprint:
        return State(fingerprint), {}
    model.load_state_dict(load_file(found[-1] / "model.safetensors"))
    tensors = load_file(found[-1] / "optimiser.safetensors")
    if f"rng.cpu.{world.rank}" in tensors:  # absent where more processes resume than had started
        torch.set_rng_state(tensors[f"rng.cpu.{world.rank}"])
    if f"rng.cuda.{world.rank}" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"rng.cuda.{world.rank}"])
    owned = {name: tensors.pop(name) for name in list(tensors) if name.startswith(optimisers.OWNERS)}
    optimisers.restore(owned, raw.pop("scaler"))
    more = {name: value for name, value in tensors.items() if not name.startswith("rng.")}
    return State(**{**raw, "position": Position(*raw["position"])}), more


def save_best(work: Path, weights: dict[str, Tensor]) -> None:
    """Keep weights as the best."""
    target = Path(work) / "best.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(".partial")
    save_file(_plain(weights), scratch)
    os.replace(scratch, target)


def load_best(work: Path, model: nn.Module) -> None:
    """Put the best weights back into the model."""
    model.load_state_dict(load_file(Path(work) / "best.safetensors"))


def _checkpoints(work: Path) -> list[Path]:
    return sorted(Path(work).glob("step-*"))


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
