"""AutoInt (Song et al. 2019, eqs. 5 to 8): self-attention among the embeddings of the features.

    α_{m,k}^h = softmax_k ⟨W_Q^h e_m, W_K^h e_k⟩          eq. 5; the inner product is not scaled
    ẽ_m = ⊕_h Σ_k α_{m,k}^h W_V^h e_k                      eqs. 6, 7
    e_m ← ReLU(ẽ_m + W_Res e_m)                            eq. 8

All tokens of the last layer, concatenated, are the representation.

Shapes: R requests, N candidates, n tokens, d width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.inputs import Blocks, Widths
from models.layers import attend
from models.tokens import FeatureTokenizer
from uniscale.model_sections import ModelConfig


class InteractingLayer(nn.Module):
    """Multi-head attention among tokens with a projected residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 4 * width, bias=False)  # W_Q, W_K, W_V, W_Res

    def forward(self, projected: Tensor) -> Tensor:
        """(N, n, 4 d), the tokens through `project`, to (N, n, d)."""
        q, k, v, residual = projected.chunk(4, dim=-1)
        return F.relu(attend(q, k, v, self.heads, scale=1.0) + residual)


class AutoInt(Backbone):
    """Interacting layers over a token a feature."""

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        config = model.autoint
        self.tokenizer = FeatureTokenizer(widths, config.dim)
        self.layers = nn.ModuleList(InteractingLayer(config.dim, config.heads) for _ in range(config.layers))
        self.width = sum(self.tokenizer.counts) * config.dim

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, n·d)."""
        e = None
        for layer in self.layers:
            assert isinstance(layer, InteractingLayer)
            if e is None:  # tokens have not met yet: the request's are projected once a request
                of_request, of_candidate = (layer.project(tokens) for tokens in self.tokenizer(blocks))
                projected = torch.cat([blocks.batch.expand(of_request), of_candidate], dim=1)
            else:
                projected = layer.project(e)
            e = layer(projected)
        assert e is not None
        return e.flatten(1)
