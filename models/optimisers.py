"""The loss, and the two optimisers of a ranking model: AdamW or RMSProp for the dense part, row-wise Adagrad for the
tables.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batches import Batch
from models.distributed import World
from models.embeddings import RowwiseAdagrad
from models.ranking import RankingModel
from uniscale.sections import TrainConfig


def task_losses(logits: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each task (UniScale 3.4.3), averaged over the weights of its labels: (T,).

    `weight` is their sum (T,) where the batch is a share of a larger one.
    """
    weight = batch.weights.sum(0) if weight is None else weight
    losses = F.binary_cross_entropy_with_logits(logits.float(), batch.labels, reduction="none")  # (N, T)
    return (losses * batch.weights).sum(0) / weight.clamp(min=1e-12)


class Optimisers:
    """The dense optimiser and row-wise Adagrad stepping together, with one warm-up and loss scaling for float16.

    Gradients of the dense part are clipped to a global norm; row-wise Adagrad divides by its own gradients' size, so
    the tables need none. Biases and norms are not decayed. With `train.ema` the dense weights have a running average,
    w̄ ← β w̄ + (1 − β) w with β = min(ema, (1 + n) / (10 + n)) at step n, so that the start is soon forgotten.
    """

    OWNERS = ("dense.", "sparse.", "average.")  # how the names of `tensors` begin

    def __init__(
        self, model: RankingModel, config: TrainConfig, device: torch.device, half: bool, world: World | None = None
    ):
        self.config, self.world = config, world or World()
        self.tables = model.inputs.tables
        self.table = table = self.tables.weight
        named = [(name, p) for name, p in model.named_parameters() if p is not table]
        self.parameters = [p for _, p in named]
        plain = {name for name, p in named if name.endswith("bias") or p.ndim < 2}
        groups = [
            {"params": [p for name, p in named if name not in plain], "weight_decay": config.weight_decay},
            {"params": [p for name, p in named if name in plain], "weight_decay": 0.0},
        ]
        self.dense: torch.optim.Optimizer
        if config.dense_optimiser == "adamw":
            self.dense = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        else:
            self.dense = torch.optim.RMSprop(groups, lr=config.learning_rate, alpha=config.rmsprop_alpha)
        self.sparse = RowwiseAdagrad([table], lr=config.embedding_learning_rate)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.average = [p.detach().clone() for p in self.parameters] if config.ema else []

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled where float16 needs it; those of the tables from all ranks."""
        self.scaler.scale(loss).backward()
        if self.table.grad is not None and self.tables.replicated:
            self.table.grad = self.world.gather_rows(self.table.grad)

    def step(self, number: int) -> float:
        """Clip, update and clear; `number` counts from 0 and sets the warm-up. Returns the norm before clipping."""
        warm = min(1.0, (number + 1) / max(self.config.warmup_steps, 1))
        for group in self.dense.param_groups:
            group["lr"] = self.config.learning_rate * warm
        for group in self.sparse.param_groups:
            group["lr"] = self.config.embedding_learning_rate * warm
        self.scaler.unscale_(self.dense)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip))
        if self.scaler.is_enabled() or math.isfinite(norm):  # a scaler skips bad steps itself
            self.scaler.step(self.dense)
            self.scaler.step(self.sparse)
            self.scaler.update()
        self.dense.zero_grad()
        self.sparse.zero_grad()
        if self.average:
            share = min(self.config.ema, (1 + number) / (10 + number))
            with torch.no_grad():
                for mean, parameter in zip(self.average, self.parameters, strict=True):
                    mean.lerp_(parameter, 1.0 - share)
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The running average in the place of the dense weights, for as long as the context lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for own, other in zip(self.parameters, self.average, strict=False):
            kept = own.clone()
            own.copy_(other)
            other.copy_(kept)

    @torch.no_grad()
    def reset_sparse(self, start: Tensor) -> None:
        """Put the tables (rows, d) back to their start and forget what row-wise Adagrad has summed (EST 5.5)."""
        (table,) = self.sparse.param_groups[0]["params"]
        table.copy_(start)
        self.sparse.state[table]["sum"].zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the optimisers' state, by a flat name; of the tables, of all ranks, which all call it."""
        return {
            f"{name}.{index}.{key}": self.tables.gather(value) if name == "sparse" else value
            for name, optimiser in (("dense", self.dense), ("sparse", self.sparse))
            for index, state in optimiser.state_dict()["state"].items()
            for key, value in state.items()
        } | {f"average.{index}.value": value for index, value in enumerate(self.average)}

    def restore(self, tensors: dict[str, Tensor], scaler: dict[str, float]) -> None:
        """Inverse of `tensors`, and the state of the loss scaling."""
        for name, optimiser in (("dense", self.dense), ("sparse", self.sparse)):
            state: dict[int, dict[str, Tensor]] = {}
            for flat, value in tensors.items():
                owner, index, key = flat.split(".")
                if owner == name:
                    state.setdefault(int(index), {})[key] = self.tables.own(value) if name == "sparse" else value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        for place, mean in enumerate(self.average):
            mean.copy_(tensors.get(f"average.{place}.value", mean))
        if scaler:
            self.scaler.load_state_dict(scaler)
