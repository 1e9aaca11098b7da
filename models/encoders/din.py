"""Deep Interest Network (Zhou et al. 2018), and several of its layers stacked.

StackDIN is the name of a baseline in OneTrans (Table 2), which gives no equations for it. Taken here: layer l is a DIN
whose query is the candidate together with what the layers before have read,
    v_l = v_{l-1} + DIN_l([item; v_{l-1}]), v_0 = 0.

Shapes: R requests, N candidates, C and L the longest candidate list and history, w behaviour width, s space of the
activation unit, h its hidden units.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.inputs import Blocks, Widths
from models.layers import PReLU
from uniscale.model_sections import ModelConfig


class LocalActivation(nn.Module):
    """DIN's eq. 3: v = Σ_j a(e_j, q) e_j, weights not normalised.

    a is a one-hidden-layer net of [q; e; q − e; q ∘ e]. For a given q that is linear in e, so the input, (C, L, 4s), is
    never built. PReLU stands for Dice, whose batch statistics would make a request's score depend on its neighbours.
    The sum is divided by the history's length, for the same scale at any length.
    """

    HIDDEN, SPACE = 8, 16

    def __init__(self, query_width: int, width: int):
        super().__init__()
        self.query = nn.Linear(query_width, self.SPACE)
        self.key = nn.Linear(width, self.SPACE)
        self.first = nn.Linear(4 * self.SPACE, self.HIDDEN)
        self.activation = PReLU(init=0.25)
        self.last = nn.Linear(self.HIDDEN, 1)

    def forward(self, query: Tensor, blocks: Blocks, among: Tensor | None = None) -> Tensor:
        """(N, query_width) to (N, w), over all behaviours or, for each candidate, over those of a mask (R, C, L)."""
        batch = blocks.batch
        q = batch.grid(self.query(query))  # (R, C, s)
        e = self.key(blocks.behaviours)  # (R, L, s)
        of_q, of_e, of_difference, of_product = self.first.weight.chunk(4, dim=1)  # (h, s) each
        # W [q; e; q − e; q ∘ e] + b = (W_e − W_d + q ∘ W_p) e + (W_q + W_d) q + b: one product with [e; 1]
        constant = F.linear(q, of_q + of_difference, self.first.bias).transpose(1, 2)  # (R, h, C)
        slope = q.unsqueeze(1) * of_product.unsqueeze(1) + (of_e - of_difference).unsqueeze(1)  # (R, h, C, s)
        left = torch.cat([slope, constant.unsqueeze(-1)], dim=-1).flatten(1, 2)  # (R, h·C, s + 1)
        right = F.pad(e, (0, 1), value=1.0).transpose(1, 2)  # (R, s + 1, L)
        hidden = self.activation(left @ right).unflatten(1, (self.HIDDEN, -1)).flatten(2)  # (R, h, C·L)
        weights = (self.last.weight @ hidden + self.last.bias).view(*q.shape[:2], -1)  # (R, C, L)
        mask = batch.behaviour_mask.unsqueeze(1) if among is None else among
        weights = weights * mask / mask.sum(-1, keepdim=True).clamp(min=1)
        return batch.ungrid(weights @ blocks.behaviours)


class DIN(Encoder):
    """One layer of local activation, queried by the candidate's item block."""

    per_candidate = True

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        self.width = widths.behaviour
        self.layer = LocalActivation(widths.candidate["item"], self.width)

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, w)."""
        read: Tensor = self.layer(blocks.candidate["item"], blocks)
        return read


class StackDIN(Encoder):
    """Layers of local activation, each queried by the candidate and the reading so far."""

    per_candidate = True

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        self.width = widths.behaviour
        item = widths.candidate["item"]
        self.first = LocalActivation(item, self.width)  # v_0 = 0 needs no weights
        self.rest = nn.ModuleList(
            LocalActivation(item + self.width, self.width) for _ in range(model.stackdin.layers - 1)
        )

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, w)."""
        item = blocks.candidate["item"]
        v: Tensor = self.first(item, blocks)
        for layer in self.rest:
            v = v + layer(torch.cat([item, v], dim=-1), blocks)
        return v
