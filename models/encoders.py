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

    a is a one-hidden-layer net of [q; e; q − e; q ∘ e]. For a given q that is linear in e, so the input, (C, L, 4s), is
    never built. PReLU stands for Dice, whose batch statistics would make a request's score depend on its neighbours.
    The sum is divided by the history's length, for the same scale at any length.
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
        # W [q; e; q − e; q ∘ e] + b = (W_e − W_d + q ∘ W_p) e + (W_q + W_d) q + b: one product with [e; 1]
        constant = F.linear(q, of_q + of_difference, self.first.bias).transpose(1, 2)  # (R, h, C)
        slope = q.unsqueeze(1) * of_product.unsqueeze(1) + (of_e - of_difference).unsqueeze(1)  # (R, h, C, s)
        left = torch.cat([slope, constant.unsqueeze(-1)], dim=-1).flatten(1, 2)  # (R, h·C, s + 1)
        right = F.pad(e, (0, 1), value=1.0).transpose(1, 2)  # (R, s + 1, L)
        hidden = self.activation(left @ right).unflatten(1, (self.HIDDEN, -1)).flatten(2)  # (R, h, C·L)
        weights = (self.last.weight @ hidden + self.last.bias).view(*q.shape[:2], -1)  # (R, C, L)
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
