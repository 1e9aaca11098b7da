"""A loaded model as it answers: in the precision that measured fastest here, and with what it keeps of its users.

Weights are float16 on disk and float32 in memory; the precision is that of the arithmetic (`serving.precision`). A
OneTrans computes a returning user's behaviours from where the last request left them, exactly as from the start
(`models.onetrans_cache`); other models have nothing to keep, as their behaviours meet the request before they meet
each other. On CUDA requests run as recorded graphs (`serving.cuda_graphs`), which cost less than a returning user's
shorter work without one: nothing of users is kept there.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import nn

from models.batches import Batch, narrowed
from models.layers import TokenLinear
from models.onetrans import OneTrans
from models.onetrans_cache import OneTransCache
from models.ranking import RankingModel
from serving.cuda_graphs import GraphScorer, Shape, shape_of
from serving.probe import made_up
from serving.user_states import History, UserStates
from uniscale.samples import SampleSpec

HIT, EXTENDED, MISS = "hit", "extended", "miss"  # what a request found of its user


class ServedModel:
    """Scores batches by one model on one device; thread-safe.

    Args:
        model: moved to the device and set to evaluation.
        device: where it computes.
        states: shared by all models of a worker; None keeps nothing of users.
        half: keep states in float16.
        found: told `HIT`, `EXTENDED` or `MISS` of each request that a state could have served.
    """

    def __init__(
        self,
        model: RankingModel,
        device: torch.device | None = None,
        states: UserStates | None = None,
        half: bool = False,
        found: Callable[[str], None] = lambda outcome: None,
    ):
        self.device = device or torch.device("cpu")
        self.measured: dict[str, float] = {}  # precision: milliseconds, where it was measured
        self.model = model.to(self.device).eval()
        self._graphs: dict[torch.dtype, GraphScorer] = {}  # on CUDA, of each precision tried
        self.shapes: set[Shape] = set()  # of the requests so far, where one of a new shape takes longer
        self.precision = torch.float32
        network = model.network
        has_history = bool(model.spec.select("behaviour"))
        keeps = states is not None and self.device.type == "cpu"
        cacheable = keeps and isinstance(network, OneTrans) and network.causal and has_history
        self.cache = OneTransCache(model, half) if cacheable else None
        self._offered = model.spec
        # Not the model itself: the states that it leaves behind would keep it in memory after it was replaced.
        self._states, self._found, self._key = states, found, object()

    @property
    def precision(self) -> torch.dtype:
        """Of the arithmetic."""
        return self._precision

    @precision.setter
    def precision(self, precision: torch.dtype) -> None:
        self._precision = precision
        if self.device.type == "cuda" and precision not in self._graphs:
            model = self.model if precision is torch.float32 else lowered(self.model, precision)
            score = partial(scored, model, self.device.type, precision)
            self._graphs[precision] = GraphScorer(score, self.device, self.model.spec.max_behaviours)

    def settle(self) -> None:
        """Forget what other precisions than the present one have recorded."""
        self._graphs = {kind: graphs for kind, graphs in self._graphs.items() if kind is self._precision}

    def given(self, offered: SampleSpec) -> "ServedModel":
        """The same model, from now on for batches of all features that a service looks up."""
        self._offered = offered
        return self

    def score(self, batch: Batch, history: History | None = None) -> torch.Tensor:
        """Calibrated probabilities, (N, T), on the CPU; `history` of a batch of one request lets its state be kept."""
        shape = shape_of(batch)
        batch = narrowed(batch, self._offered, self.model.spec)
        if self._graphs:
            scores = self._graphs[self._precision](batch)
            self.shapes.add(shape)  # only now: a shape that cannot be recorded would have every swap refused
            return scores
        if history is None or self.cache is None:
            return scored(self.model, self.device.type, self._precision, batch).float().cpu()
        with _arithmetic(self.device.type, self._precision):
            return self._returning(batch, history).float().cpu()

    def meet(self, shapes: Iterable[Shape]) -> None:
        """Score a made-up request of each shape, so that no user's is the first of it."""
        for candidates, behaviours in sorted(shapes):
            self.score(made_up(self._offered, 1, candidates, min(behaviours, self._offered.max_behaviours)))

    def state(self) -> dict[str, Any]:
        """For the health page."""
        name = str(self.precision).removeprefix("torch.")
        return {"device": self.device.type, "precision": name, "milliseconds": self.measured}

    def _returning(self, batch: Batch, history: History) -> torch.Tensor:
        assert self.cache is not None and self._states is not None
        key = (self._key, history.user_id)
        kept = self._states.get(key)
        new = history.new_since(kept[0], self.cache.network.sequence.most_events) if kept is not None else None
        self._found(MISS if new is None else EXTENDED if new else HIT)
        if kept is None or new is None:
            scores, state = self.cache.score(batch)
        else:
            scores, state = self.cache.score(batch, kept[1], new)
        if new != 0:
            self._states.put(key, (history.events, state), state.size_bytes + history.events.nbytes)
        return scores


def scored(model: RankingModel, device: str, precision: torch.dtype, batch: Batch) -> torch.Tensor:
    """Calibrated probabilities, (N, T), of a batch on a device of that type, where they stay."""
    with _arithmetic(device, precision):
        return model.score(batch)


def _arithmetic(device: str, precision: torch.dtype) -> Any:
    return nullcontext() if precision is torch.float32 else torch.autocast(device, precision)


def lowered(model: RankingModel, precision: torch.dtype) -> RankingModel:
    """A copy whose linear maps hold their weights as autocast would make them for each request; it shares the rest."""
    maps = [module for module in model.modules() if isinstance(module, nn.Linear | TokenLinear)]
    own = {id(tensor) for module in maps for tensor in module.parameters()}
    shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in own}
    copy = deepcopy(model, shared)
    for module in copy.modules():
        if isinstance(module, nn.Linear | TokenLinear):
            module.to(precision)
    return copy
