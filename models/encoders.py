"""Sequence encoders: a user's behaviours to one vector, once a request (mean) or for each candidate (DIN).

No encoder copies a history for each of its request's candidates: candidates are laid on a grid (R, C, ·) and meet
the history in matrix products.

Shapes: R requests, N candidates, C and L the longest candidate list and history, w behaviour width, h hidden units.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.inputs import Blocks, Widths
from uniscale.config import nearest
from uniscale.errors import ModelError


class Encoder(nn.Module):
    """Behaviours to a vector of `width`: (R, width), or (N, width) where `per_candidate`."""

    per_candidate = False
    width: int

    def forward(self, blocks: Blocks) -> Tensor:
        """Encode the histories of a batch."""
        raise NotImplementedError


class MeanPooling(Encoder):
    """Mean of the behaviours; an empty history is zero."""

    def __init__(self, widths: Widths):
        super().__init__()
        self.width = widths.behaviour

    def forward(self, blocks: Blocks) -> Tensor:
        """(R, w)."""
        count = blocks.batch.behaviour_mask.sum(1, keepdim=True).clamp(min=1)
        return blocks.behaviours.sum(1) / count  # empty positions are zero


class DIN(Encoder):
    """Deep Interest Network (Zhou et al. 2018, eq. 3): v = Σ_j a(e_j, q) e_j, weights not normalised.

    a is a one-hidden-layer net of [q; e; q − e; q ∘ e]. Its first layer splits into a part of q, a part of e and a
    part of q ∘ e, so the (C, L, 4w) input is never built. PReLU stands for Dice, whose batch statistics would make a
    request's score depend on its neighbours. The sum is divided by the history's length, for the same scale at
    any length.
    """

    per_candidate = True
    HIDDEN, SPACE = 8, 16

    def __init__(self, widths: Widths):
        super().__init__()
        self.width = widths.behaviour
        self.query = nn.Linear(widths.candidate["item"], self.SPACE)
        self.key = nn.Linear(widths.behaviour, self.SPACE)
        self.first = nn.Linear(4 * self.SPACE, self.HIDDEN)
        self.activation = nn.PReLU(init=0.25)
        self.last = nn.Linear(self.HIDDEN, 1)

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, w)."""
        batch = blocks.batch
        q = batch.grid(self.query(blocks.candidate["item"]))  # (R, C, s)
        e = self.key(blocks.behaviours)  # (R, L, s)
        of_q, of_e, of_difference, of_product = self.first.weight.chunk(4, dim=1)  # (h, s) each
        from_q = F.linear(q, of_q + of_difference, self.first.bias)  # (R, C, h)
        from_e = F.linear(e, of_e - of_difference)  # (R, L, h)
        # Σ_s P[h, s] q[c, s] e[l, s] for all h at once: (R, C·h, s) times (R, s, L)
        weighted = (q.unsqueeze(2) * of_product).flatten(1, 2)
        product = (weighted @ e.transpose(1, 2)).unflatten(1, (-1, self.HIDDEN))  # (R, C, h, L)
        hidden = product + from_q.unsqueeze(-1) + from_e.transpose(1, 2).unsqueeze(1)
        hidden = torch.where(hidden > 0, hidden, self.activation.weight * hidden)
        weights = torch.einsum("rchl,h->rcl", hidden, self.last.weight[0]) + self.last.bias
        mask = batch.behaviour_mask
        weights = weights * mask.unsqueeze(1) / mask.sum(1).clamp(min=1)[:, None, None]
        return batch.ungrid(weights @ blocks.behaviours)


def build_encoder(name: str, widths: Widths) -> Encoder | None:
    """An encoder by name; None where the samples have no history.

    Raises:
        ModelError: no encoder of that name.
    """
    if name not in ENCODERS:
        raise ModelError(f"model.encoder = {name!r} is unknown{nearest(name, list(ENCODERS))}")
    return ENCODERS[name](widths) if widths.behaviour else None


ENCODERS: dict[str, Callable[[Widths], Encoder]] = {"mean": MeanPooling, "din": DIN}
