"""Scoring on CUDA by recorded graphs: one launch a request, where a model's some thousand kernels cost the CPU more
time to start than the device takes to run them.

A graph is of fixed shapes, so a request is padded to the next power of two of candidates and of behaviours, which
changes none of its scores, and the padding's scores are cut off. A request's tensors travel in one copy. Shapes are
recorded as they come, 50 ms or so for the first request of each; those of the models that it replaces a new model
records before it answers (`serving.switch`).
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batches import Batch

SMALLEST = 16  # candidates, behaviours
ALIGNMENT = 16  # bytes, of each tensor in the buffer that travels
WARM_UP = 2  # runs before a recording, in which libraries choose kernels and take their memory
OF_CANDIDATES = ("candidate_ids", "candidate_numbers", "candidate_content", "candidate_text", "labels", "weights")
_DEVICE = threading.Lock()  # one request or recording at a time: models share the device


Shape = tuple[int, int]  # room for candidates, and for behaviours


def room_for(count: int) -> int:
    """The next power of two that holds so many, at least `SMALLEST`."""
    return max(SMALLEST, 1 << (count - 1).bit_length())


def shape_of(batch: Batch) -> Shape:
    """The room that a batch of one request takes; of several, enough for each."""
    return room_for(batch.candidate_mask.shape[1]), room_for(batch.behaviour_mask.shape[1])


def apart(batch: Batch) -> Iterator[Batch]:
    """The requests of a batch, each as a batch of its own."""
    if batch.requests == 1:
        yield batch
        return
    for r, (first, last) in enumerate(pairwise(batch.offsets.tolist())):
        own = {f.name: slice(first, last) if f.name in OF_CANDIDATES else slice(r, r + 1) for f in fields(Batch)}
        parts = {name: getattr(batch, name)[rows] for name, rows in own.items()}
        yield replace(batch, **{**parts, **_of_one(last - first)})


def _of_one(candidates: int) -> dict[str, Tensor]:
    """How the candidates of a batch of one request lie."""
    return {
        "offsets": torch.tensor([0, candidates]),
        "request_of": torch.zeros(candidates, dtype=torch.int64),
        "slot": torch.arange(candidates),
        "candidate_mask": torch.ones(1, candidates, dtype=torch.bool),
    }


def widened(batch: Batch, candidates: int, behaviours: int) -> Batch:
    """One request with more candidates, all zeros, and a longer padding of its history.

    Args:
        batch: R = 1.
        candidates, behaviours: at least as many as the batch has.
    """
    more, longer = candidates - batch.candidates, behaviours - batch.behaviour_mask.shape[1]
    wide = {name: F.pad(getattr(batch, name), (0, 0, 0, more)) for name in OF_CANDIDATES}
    for name in (f.name for f in fields(Batch) if f.name.startswith("behaviour_")):
        value = getattr(batch, name)
        wide[name] = F.pad(value, (0, 0, 0, longer) if value.dim() == 3 else (0, longer))
    return replace(batch, **{**wide, **_of_one(candidates)})


def packed(batch: Batch, device: torch.device | None = None) -> tuple[Tensor, Batch]:
    """One buffer of bytes, and in it tensors of a batch's shapes; page-locked on the CPU without a device.

    The contents are a copy of the batch.
    """
    values = [getattr(batch, f.name).contiguous() for f in fields(Batch)]
    places, end = [], 0
    for value in values:
        places.append(end)
        end += -(-value.numel() * value.element_size() // ALIGNMENT) * ALIGNMENT
    locked = device is None and torch.cuda.is_available()
    buffer = torch.zeros(end, dtype=torch.uint8, device=device, pin_memory=locked)
    views = [
        buffer[place : place + value.numel() * value.element_size()].view(value.dtype).view(value.shape)
        for place, value in zip(places, values, strict=True)
    ]
    for view, value in zip(views, values, strict=True):
        view.copy_(value)
    return buffer, Batch(*views)


@dataclass(frozen=True)
class Recording:
    """A graph, and what it reads and writes."""

    graph: torch.cuda.CUDAGraph
    here: tuple[Tensor, Batch]  # on the CPU
    there: tuple[Tensor, Batch]  # on the device
    scores: Tensor  # (N, T), on the device


class GraphScorer:
    """`score`, request by request, recorded once a shape; thread-safe.

    Args:
        score: a batch on the device to (N, T); it must not wait for the device.
        device: a CUDA device.
        longest: behaviours that a history has at most.
    """

    def __init__(self, score: Callable[[Batch], Tensor], device: torch.device, longest: int):
        self._score, self._device, self._longest = score, device, max(1, longest)
        self._recorded: dict[Shape, Recording] = {}
        self._memory = torch.cuda.graph_pool_handle()  # graphs run one after another, so they share it

    def __call__(self, batch: Batch) -> Tensor:
        """Scores (N, T) on the CPU, of a batch on the CPU."""
        return torch.cat([self._one(request) for request in apart(batch)])

    def _one(self, batch: Batch) -> Tensor:
        candidates, behaviours = shape_of(batch)
        shape = candidates, min(behaviours, self._longest)
        wide = widened(batch, *shape)
        with _DEVICE:
            recording = self._recorded.get(shape)
            if recording is None:
                recording = self._recorded[shape] = self._record(wide)
            for f in fields(Batch):
                getattr(recording.here[1], f.name).copy_(getattr(wide, f.name))
            recording.there[0].copy_(recording.here[0], non_blocking=True)
            recording.graph.replay()
            return recording.scores[: batch.candidates].float().cpu()

    def _record(self, batch: Batch) -> Recording:
        here, there = packed(batch), packed(batch, self._device)
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._score(there[1])
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            scores = self._score(there[1])
        return Recording(graph, here, there, scores)
