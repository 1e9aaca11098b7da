"""HMoE, hybrid of implicit and explicit mixture of experts (Li et al. 2020), for scenarios that share a label space.

Implicit, in the feature space: each domain's score S_j(x) comes from an MMoE's gate and tower of that domain. Explicit,
in the label space: the answer for a row of domain i is
    y_i = Σ_j softmax_j(G_i(x)) S_j(x),
where task-constrained back-propagation stops the gradient of every S_j, j ≠ i: a domain's tower learns from its own
rows alone. Scores are logits here, one a task, and the label gates are linear.

Deployed for one domain, all towers stay, for their scores are summed; other domains' label gates go.

Shapes: N candidates, D domains, T tasks.
"""

import torch
from torch import Tensor, nn

from models.heads.base import Experts, Head, HeadSizes
from models.heads.mmoe import GatedTowers
from models.inputs import Blocks


class HMoE(Head):
    """Every domain's gated towers on every row, weighed by the own domain's label gate."""

    def __init__(self, sizes: HeadSizes):
        super().__init__(sizes)
        self.experts = Experts(sizes.width, sizes)
        self.towers = nn.ModuleList(GatedTowers(sizes) for _ in range(sizes.domains))
        out = sizes.tasks * sizes.domains
        self.own = nn.ModuleDict({str(d): nn.Linear(sizes.width, out) for d in range(sizes.domains)})

    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """(N, width) to (N, T)."""
        routing = self.routing(blocks.batch)
        x = routing.sort(x)
        scores, _ = routing.views(self.towers, x, self.experts(x))  # (N, D, T)
        weights = torch.softmax(routing.apply(self.own, x).unflatten(-1, (self.domains, -1)), dim=1)  # (N, D, T)
        return routing.restore((weights * scores).sum(1))
