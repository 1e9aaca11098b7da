"""The tensors of a batch: histories padded once a request, item vectors gathered, candidates left jagged.

Shapes: R requests, N candidates, C and L the longest candidate list and history of the batch, T tasks, S scenarios.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.rows import ItemVectors, Rows
from uniscale.samples import Kind, Level, SampleSpec


@dataclass(frozen=True)
class Batch:
    """Tensors of R requests and their N candidates; request-level values exist once a request."""

    offsets: Tensor  # (R+1,) int64
    request_of: Tensor  # (N,) int64
    slot: Tensor  # (N,) int64, place of each candidate in the (R, C) grid, row-major
    candidate_mask: Tensor  # (R, C) bool, true where the grid holds a candidate
    request_ids: Tensor  # (R, ·) int64
    request_numbers: Tensor  # (R, ·) float32, NaN where missing
    query_text: Tensor  # (R, text_dim)
    domain: Tensor  # (R,) int64
    scenarios: Tensor  # (R, S)
    candidate_ids: Tensor  # (N, ·) int64
    candidate_numbers: Tensor  # (N, ·)
    candidate_content: Tensor  # (N, content_dim)
    candidate_text: Tensor  # (N, text_dim)
    behaviour_ids: Tensor  # (R, L, ·) int64
    behaviour_numbers: Tensor  # (R, L, ·)
    behaviour_content: Tensor  # (R, L, content_dim)
    behaviour_text: Tensor  # (R, L, text_dim)
    behaviour_age: Tensor  # (R, L) seconds before the request
    behaviour_mask: Tensor  # (R, L) bool, true where there is a behaviour
    labels: Tensor  # (N, T)
    weights: Tensor  # (N, T), weight of each label in the loss; 0 leaves it out

    @property
    def requests(self) -> int:
        """R."""
        return self.domain.shape[0]

    @property
    def candidates(self) -> int:
        """N."""
        return self.request_of.shape[0]

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device."""
        moved = (getattr(self, f.name).to(device, non_blocking=True) for f in fields(self))
        return Batch(*moved)

    def pinned(self) -> "Batch":
        """The batch in page-locked memory, which a CUDA device reads on its own."""
        return Batch(*(getattr(self, f.name).pin_memory() for f in fields(self)))

    def expand(self, per_request: Tensor) -> Tensor:
        """(R, …) to (N, …): each candidate gets its request's value."""
        return per_request.index_select(0, self.request_of)

    def grid(self, per_candidate: Tensor) -> Tensor:
        """(N, d) to (R, C, d), zero where a request has fewer than C candidates."""
        requests, width = self.candidate_mask.shape
        if self._full:
            return per_candidate.reshape(requests, width, per_candidate.shape[-1])
        flat = per_candidate.new_zeros(requests * width, per_candidate.shape[-1])
        return flat.index_copy(0, self.slot, per_candidate).view(requests, width, -1)

    def ungrid(self, grid: Tensor) -> Tensor:
        """(R, C, d) to (N, d), the inverse of `grid`."""
        flat = grid.flatten(0, 1)
        return flat if self._full else flat.index_select(0, self.slot)

    @property
    def _full(self) -> bool:
        """Lists of one length, as in serving, lie on the grid as they are; an exported graph takes lists of any."""
        return not torch.compiler.is_compiling() and self.candidates == self.candidate_mask.numel()


def to_batch(rows: Rows, vectors: ItemVectors, length: int | None = None) -> Batch:
    """Pad the histories, gather the item vectors and make tensors.

    Args:
        rows: at least one request, each with at least one candidate.
        vectors: the frozen vectors that `item` and `behaviour_index` point into.
        length: L; by default the longest history of the rows, at most `spec.max_behaviours` and at least 1.
            Longer histories keep their newest behaviours.
    """
    counts = np.diff(rows.offsets)
    width = int(counts.max())
    request_of = rows.request_of
    slot = np.arange(rows.candidates) - rows.offsets[:-1][request_of] + request_of * width

    lengths = np.diff(rows.behaviour_offsets)
    longest = length or max(1, min(int(lengths.max()), rows.spec.max_behaviours))
    kept = np.minimum(lengths, longest)
    mask = np.arange(longest) < kept[:, None]  # (R, L)
    source = (rows.behaviour_offsets[1:] - kept)[:, None] + np.arange(longest)  # (R, L)
    empty = ~mask

    def padded(values: NDArray) -> NDArray:
        if not len(values):
            return np.zeros((*mask.shape, *values.shape[1:]), values.dtype)
        out = values.take(source, axis=0, mode="clip")  # an empty place reads some other behaviour
        out[empty] = 0
        return out

    seen = padded(rows.behaviour_index)
    age = torch.from_numpy(rows.ts[:, None] - padded(rows.behaviour_ts)).to(torch.float32)
    labels = torch.from_numpy(rows.labels)
    return Batch(
        offsets=torch.from_numpy(rows.offsets),
        request_of=torch.from_numpy(request_of),
        slot=torch.from_numpy(slot),
        candidate_mask=torch.from_numpy(np.arange(width) < counts[:, None]),
        request_ids=torch.from_numpy(rows.request_ids),
        request_numbers=torch.from_numpy(rows.request_numbers),
        query_text=torch.from_numpy(rows.query_text),
        domain=torch.from_numpy(rows.domain),
        scenarios=torch.from_numpy(rows.scenarios),
        candidate_ids=torch.from_numpy(rows.candidate_ids),
        candidate_numbers=torch.from_numpy(rows.candidate_numbers),
        candidate_content=torch.from_numpy(vectors.content.take(rows.item, axis=0)),
        candidate_text=torch.from_numpy(vectors.text.take(rows.item, axis=0)),
        behaviour_ids=torch.from_numpy(padded(rows.behaviour_ids)),
        behaviour_numbers=torch.from_numpy(padded(rows.behaviour_numbers)),
        behaviour_content=torch.from_numpy(vectors.content.take(seen, axis=0)),
        behaviour_text=torch.from_numpy(vectors.text.take(seen, axis=0)),
        behaviour_age=age * torch.from_numpy(mask),
        behaviour_mask=torch.from_numpy(mask),
        labels=labels,
        weights=torch.ones_like(labels),
    )


def narrowed(batch: Batch, offered: SampleSpec, wanted: SampleSpec) -> Batch:
    """A batch of all features `offered` as a model reads it that wants some of them; shapes (·, F) become (·, F')."""
    if wanted == offered:
        return batch
    kept = {}
    kinds_of: dict[str, tuple[Kind, ...]] = {"ids": ("id",), "numbers": ("count", "number")}
    levels: tuple[Level, ...] = ("request", "candidate", "behaviour")
    for level in levels:
        for part, kinds in kinds_of.items():
            names = [feature.name for feature in offered.select(level, kinds)]
            places = [names.index(feature.name) for feature in wanted.select(level, kinds)]
            kept[f"{level}_{part}"] = getattr(batch, f"{level}_{part}")[..., places]
    if not wanted.select("behaviour"):  # nobody has a history then: one empty place, as `to_batch` pads it
        for name in ("ids", "numbers", "content", "text", "age", "mask"):
            values = kept.get(f"behaviour_{name}", getattr(batch, f"behaviour_{name}"))
            kept[f"behaviour_{name}"] = torch.zeros_like(values[:, :1])
    return replace(batch, **kept)
