"""Wukong (Zhang et al. 2024): stacked factorization machines.

    X_{i+1} = LN(concat(FMB_i(X_i), LCB_i(X_i)) + X_i), n_F + n_L embeddings
    FMB(X) = reshape(MLP(LN(flatten(FM(X))))), FM(X) = X Xᵀ Y with Y (n, k), computed as X (Xᵀ Y)
    LCB(X) = W_L X

X_i passes a linear map over embeddings where their number changes. Y is learnt and the same for all rows; the paper's
attentive Y is not taken. All embeddings of the last layer, concatenated, are the representation.

Shapes: N candidates, n embeddings, d width.
"""

import torch
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.inputs import Blocks, Widths
from models.layers import mlp
from models.tokens import FeatureTokenizer
from uniscale.model_sections import ModelConfig, WukongConfig


class WukongLayer(nn.Module):
    """FMB and LCB side by side, with a residual."""

    def __init__(self, tokens: int, config: WukongConfig, dropout: float):
        super().__init__()
        width, rank, self.fm_tokens = config.dim, config.rank, config.fm_tokens
        made = config.fm_tokens + config.lcb_tokens
        self.y = nn.Parameter(torch.randn(tokens, rank) / tokens**0.5)
        self.norm_fm = nn.LayerNorm(tokens * rank)
        self.mlp = nn.Sequential(
            mlp(tokens * rank, [config.hidden], dropout), nn.Linear(config.hidden, config.fm_tokens * width)
        )
        self.lcb = nn.Linear(tokens, config.lcb_tokens, bias=False)
        self.residual = nn.Linear(tokens, made, bias=False) if made != tokens else nn.Identity()
        self.norm = nn.LayerNorm(width)

    def fm(self, x: Tensor) -> Tensor:
        """X Xᵀ Y, (N, n, k)."""
        return x @ (x.transpose(1, 2) @ self.y)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n, d) to (N, n_F + n_L, d)."""
        fmb = self.mlp(self.norm_fm(self.fm(x).flatten(1))).unflatten(1, (self.fm_tokens, -1))
        over = x.transpose(1, 2)  # (N, d, n): linear maps over embeddings
        lcb = self.lcb(over).transpose(1, 2)
        made: Tensor = self.norm(torch.cat([fmb, lcb], dim=1) + self.residual(over).transpose(1, 2))
        return made


class Wukong(Backbone):
    """Layers over an embedding a feature."""

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        config = model.wukong
        self.tokenizer = FeatureTokenizer(widths, config.dim)
        made = config.fm_tokens + config.lcb_tokens
        counts = [sum(self.tokenizer.counts), *[made] * (config.layers - 1)]
        self.layers = nn.Sequential(*(WukongLayer(count, config, model.dropout) for count in counts))
        self.width = made * config.dim

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, (n_F + n_L)·d)."""
        of_request, of_candidate = self.tokenizer(blocks)
        x = torch.cat([blocks.batch.expand(of_request), of_candidate], dim=1)
        output: Tensor = self.layers(x).flatten(1)
        return output
