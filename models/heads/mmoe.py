"""MMoE, multi-gate mixture of experts (Ma et al. 2018).

    y_k = h_k(Σ_i g_k(x)_i f_i(x)), g_k(x) = softmax(W_gk x)

Experts f_i are shared by all domains and tasks; gate and tower k belong to one task of one domain.

Shapes: N candidates, E experts, w their width, T tasks.
"""

import torch
from torch import Tensor, nn

from models.heads.base import Experts, Head, HeadSizes, tower
from models.inputs import Blocks


class GatedTowers(nn.Module):
    """A gate over the experts and a tower for each task."""

    def __init__(self, sizes: HeadSizes):
        super().__init__()
        self.tasks = sizes.tasks
        self.gates = nn.Linear(sizes.width, sizes.tasks * sizes.config.experts, bias=False)
        self.towers = nn.ModuleList(tower(sizes.config.expert_hidden[-1], sizes) for _ in range(sizes.tasks))

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """x, (N, width), and the experts' outputs (N, E, w) to (N, T)."""
        weights = torch.softmax(self.gates(x).unflatten(-1, (self.tasks, -1)), dim=-1)  # (N, T, E)
        mixed = (weights @ f).unbind(1)
        return torch.cat([one(own) for one, own in zip(self.towers, mixed, strict=True)], dim=-1)


class MMoE(Head):
    """Shared experts under every domain's gated towers."""

    def __init__(self, sizes: HeadSizes):
        super().__init__(sizes)
        self.experts = Experts(sizes.width, sizes)
        self.own = nn.ModuleDict({str(d): GatedTowers(sizes) for d in range(sizes.domains)})

    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """(N, width) to (N, T)."""
        routing = self.routing(blocks.batch)
        x = routing.sort(x)
        return routing.restore(routing.apply(self.own, x, self.experts(x)))
