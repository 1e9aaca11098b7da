"""DCN-V2, improved deep and cross network (Wang et al. 2021, eqs. 1 and 2, section 3.3).

    x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l                full cross, eq. 1
    x_{l+1} = x_0 ⊙ (U_l V_lᵀ x_l + b_l) + x_l            low-rank cross, eq. 2, where `rank` is not 0

`stacked`: the deep net reads the last cross layer; `parallel`: it reads x_0, and both outputs are concatenated. The
mixture of low-rank experts (eq. 3) is not taken.

Shapes: R requests, N candidates, w width of all embeddings.
"""

import torch
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.backbones.mlp import MixedMLP
from models.inputs import Blocks, Widths
from models.layers import MixedLinear, mlp
from uniscale.model_sections import ModelConfig


class DCNv2(Backbone):
    """Cross layers and a deep net over all blocks; what reads x_0 does the request's share once a request."""

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        config, sizes = model.dcnv2, widths.flat()
        width, inner, full = sum(sizes), config.rank or sum(sizes), config.rank == 0
        self.first = MixedLinear(*sizes, inner, bias=full)  # W_0, or V_0ᵀ
        self.rest = nn.ModuleList(nn.Linear(width, inner, bias=full) for _ in range(config.layers - 1))
        self.up = nn.ModuleList(nn.Linear(inner, width) for _ in range(0 if full else config.layers))
        self.stacked = config.structure == "stacked"
        deep = mlp(width, config.hidden, model.dropout) if self.stacked else None
        self.deep = deep or MixedMLP(*sizes, config.hidden, model.dropout)
        self.width = config.hidden[-1] + (0 if self.stacked else width)

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, width)."""
        parts, batch = blocks.flat(), blocks.batch
        x = self.cross(*parts, blocks)
        output: Tensor = self.deep(x) if self.stacked else torch.cat([x, self.deep(*parts, batch)], dim=-1)
        return output

    def cross(self, request: Tensor, candidate: Tensor, blocks: Blocks) -> Tensor:
        """The last x_l, (N, w)."""
        x = x_0 = torch.cat([blocks.batch.expand(request), candidate], dim=-1)
        for number in range(len(self.rest) + 1):
            y = self.rest[number - 1](x) if number else self.first(request, candidate, blocks.batch)
            x = x_0 * (self.up[number](y) if self.up else y) + x
        return x
