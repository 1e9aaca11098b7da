"""Attention of many candidates' tokens over keys and values of their request, which are never copied.

The candidates of a request are folded into the query length, so one product meets the shared part; a candidate's own
tokens are attended apart, and the two parts are merged by their log-sum-exp: with l = log Σ_j exp s_j of each part,
softmax over both together = σ(l_s − l_o) · (shared part) + σ(l_o − l_s) · (own part).

Shapes: R requests, N candidates, C longest candidate list, H heads, o tokens a candidate, p shared tokens, e = d / H.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import attend_part
from models.batches import Batch


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, n, d) to (B, H, n, e)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, n, e) to (B, n, d)."""
    return x.transpose(1, 2).flatten(-2)


def fold(x: Tensor, batch: Batch) -> Tensor:
    """A candidate's tokens (N, H, o, e) to its request's (R, H, C·o, e)."""
    return batch.grid(x.flatten(1)).unflatten(-1, x.shape[1:]).transpose(1, 2).flatten(2, 3)


def unfold(x: Tensor, batch: Batch, tokens: int) -> Tensor:
    """(R, H, C·o, e) to (N, H, o, e), the inverse of `fold`."""
    grid = x.unflatten(2, (-1, tokens)).transpose(1, 2)  # (R, C, H, o, e)
    return batch.ungrid(grid.flatten(2)).unflatten(-1, grid.shape[2:])


def attend_shared(
    q: Tensor, shared: tuple[Tensor, Tensor, Tensor], own: tuple[Tensor, Tensor, Tensor], batch: Batch
) -> Tensor:
    """Attention of candidates' tokens over their request's keys and their own.

    Args:
        q: (N, H, o, e).
        shared: the request's k and v, (R, H, p, e) each, and which of them exist, (R, p).
        own: the candidate's k and v, (N, H, o, e) each, and which token sees which, (N or 1, 1, o, o).
        batch: the batch that says which request a candidate belongs to.

    Returns:
        (N, H, o, e).
    """
    k, v, valid = shared
    folded = attend_part(fold(q, batch), k, v, valid[:, None, None])
    of_shared, total_shared = (unfold(part, batch, q.shape[2]) for part in folded)
    of_own, total_own = attend_part(q, *own)
    weight = torch.sigmoid(total_shared - total_own).to(of_own.dtype)  # of the shared part
    return torch.lerp(of_own, of_shared, weight)


@dataclass(frozen=True)
class Rotation:
    """Cosines and signed sines that turn heads of width e at n positions, (n, e) each."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, position: Tensor, width: int) -> "Rotation":
        """For positions (n,), whole numbers of either sign, and e even."""
        half = width // 2
        rate = 10_000.0 ** (-torch.arange(half, device=position.device, dtype=torch.float64) / half)
        angle = position.to(torch.float64).unsqueeze(-1) * rate  # in float64: large positions keep their differences
        cos, sin = angle.cos().float(), angle.sin().float()
        return cls(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))

    def __getitem__(self, rows: slice) -> "Rotation":
        return Rotation(self.cos[rows], self.sin[rows])

    def tail(self, kept: int) -> "Rotation":
        """Of the last positions, zeros ahead where n is smaller."""
        cos, sin = (F.pad(x, (0, 0, kept, 0))[-kept:] for x in (self.cos, self.sin))
        return Rotation(cos, sin)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotary position encoding (Su et al. 2021): q · k then depends on the difference of two positions alone.

    x is (B, H, n, e).
    """
    # [x_1 cos - x_2 sin; x_1 sin + x_2 cos] in two passes over whole heads
    return torch.addcmul(x * by.cos.to(x.dtype), x.roll(x.shape[-1] // 2, -1), by.sin.to(x.dtype))
