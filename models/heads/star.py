"""STAR, star topology adaptive recommender (Sheng et al. 2021).

    partitioned norm            z' = (γ ⊙ γ_p) (z − μ_p) / √(σ_p² + ε) + (β + β_p)
    star-topology FCN           W*_p = W_p ⊙ W, b*_p = b_p + b
    auxiliary network           logit = FCN(z') + a([domain; z])

Moments are those of a domain's own rows of the batch in training and their moving averages in inference, as published,
so a request's score never depends on its neighbours once training is over. W_p starts at one and b_p at zero: every
domain begins as the shared net.

Shapes: R requests, N candidates, T tasks.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads.base import Head, HeadSizes
from models.inputs import Blocks
from models.layers import MixedLinear

MOMENTUM, EPSILON = 0.1, 1e-5


class OwnSTAR(nn.Module):
    """γ_p, β_p, W_p and b_p of one domain, and the moving moments of its rows."""

    mean: Tensor
    variance: Tensor

    def __init__(self, widths: list[int]):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(widths[0]))
        self.shift = nn.Parameter(torch.zeros(widths[0]))
        self.weights = nn.ParameterList(torch.ones(out, width) for width, out in pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(out) for out in widths[1:])
        self.register_buffer("mean", torch.zeros(widths[0]))
        self.register_buffer("variance", torch.ones(widths[0]))

    def moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """μ_p and σ_p², (width,) each: of these rows in training, moving averages otherwise."""
        if not self.training:
            return self.mean, self.variance
        variance, mean = torch.var_mean(z, dim=0, correction=0)
        with torch.no_grad():
            self.mean.lerp_(mean.to(self.mean.dtype), MOMENTUM)
            self.variance.lerp_(variance.to(self.variance.dtype), MOMENTUM)
        return mean, variance


class STAR(Head):
    """Partitioned normalisation and star-topology layers, with an auxiliary net beside them."""

    def __init__(self, sizes: HeadSizes):
        super().__init__(sizes)
        widths = [sizes.width, *sizes.config.tower_hidden, sizes.tasks]
        self.scale = nn.Parameter(torch.ones(sizes.width))
        self.shift = nn.Parameter(torch.zeros(sizes.width))
        self.layers = nn.ModuleList(nn.Linear(width, out) for width, out in pairwise(widths))
        self.own = nn.ModuleDict({str(d): OwnSTAR(widths) for d in range(sizes.domains)})
        dim, hidden = sizes.model.embedding_dim, widths[-2]
        self.indicator = nn.Embedding(sizes.domains, dim)
        self.auxiliary = MixedLinear(dim, sizes.width, hidden)
        self.auxiliary_out = nn.Linear(hidden, sizes.tasks)

    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """(N, width) to (N, T)."""
        batch = blocks.batch
        routing = self.routing(batch)
        of_star = routing.restore(routing.each(self.star, routing.sort(x)))
        hidden = F.silu(self.auxiliary(self.indicator(self.domain(batch)), x, batch))
        logits: Tensor = of_star + self.auxiliary_out(hidden)
        return logits

    def star(self, domain: str, z: Tensor) -> Tensor:
        """(rows of a domain, width) to (rows, T)."""
        own = self.own[domain]
        assert isinstance(own, OwnSTAR)
        mean, variance = own.moments(z)
        z = self.scale * own.scale * (z - mean) * torch.rsqrt(variance + EPSILON) + self.shift + own.shift
        for number, (layer, weight, bias) in enumerate(zip(self.layers, own.weights, own.biases, strict=True)):
            z = F.linear(F.silu(z) if number else z, layer.weight * weight, layer.bias + bias)
        return z
