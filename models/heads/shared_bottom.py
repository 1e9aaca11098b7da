"""Shared bottom (Caruana 1997): y_k = h_k(f(x)), one shared net f, a tower h_k for each task of each domain."""

import torch
from torch import Tensor, nn

from models.heads.base import Head, HeadSizes, tower
from models.inputs import Blocks
from models.layers import mlp


class Towers(nn.Module):
    """A tower a task: (N, width) to (N, T)."""

    def __init__(self, width: int, sizes: HeadSizes):
        super().__init__()
        self.towers = nn.ModuleList(tower(width, sizes) for _ in range(sizes.tasks))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) to (N, T)."""
        return torch.cat([one(x) for one in self.towers], dim=-1)


class SharedBottom(Head):
    """A shared net under every domain's towers."""

    def __init__(self, sizes: HeadSizes):
        super().__init__(sizes)
        hidden = sizes.config.expert_hidden
        self.bottom = mlp(sizes.width, hidden, sizes.model.dropout)
        self.own = nn.ModuleDict({str(d): Towers(hidden[-1], sizes) for d in range(sizes.domains)})

    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """(N, width) to (N, T)."""
        routing = self.routing(blocks.batch)
        return routing.restore(routing.apply(self.own, routing.sort(self.bottom(x))))
