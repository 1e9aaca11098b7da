"""RankMixer (Zhu et al. 2025): parameter-free token mixing and an FFN of its own for each token.

    S = LN(TokenMixing(X) + X), X ← LN(PFFN(S) + S)
    TokenMixing: token h of the outcome is the h-th of H = n slices of every token, concatenated
    PFFN: a two-layer net a token; SiLU for the paper's GELU
    sparse MoE: v_i = Σ_j ReLU(router_i(s_i))_j expert_ij(s_i), where `experts` is not 0

The mean of the tokens is the representation. The sparse form takes the paper's ReLU routing; its L1 penalty on the
gates and its two routers for dense training are not taken, so the share of silent experts is what training makes it.

Shapes: N candidates, n tokens, d width, E experts a token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.inputs import Blocks, Widths
from models.layers import TokenFFN, TokenLinear, mix_tokens
from models.tokens import SplitTokenizer
from uniscale.model_sections import ModelConfig, RankMixerConfig


class SparseFFN(nn.Module):
    """E small nets a token, each weighted by its ReLU gate: Σ_j G_ij (W'_ij silu(W_ij s_i + b_ij)) + b'_i."""

    def __init__(self, tokens: int, width: int, hidden: int, experts: int):
        super().__init__()
        self.experts = experts
        self.router = TokenLinear(tokens, width, experts)
        assert self.router.bias is not None
        nn.init.constant_(self.router.bias, 0.5)  # gates begin open for most rows: a ReLU that is shut learns nothing
        self.rise = TokenLinear(tokens, width, experts * hidden)
        self.fall = TokenLinear(tokens, experts * hidden, width)

    def gates(self, s: Tensor) -> Tensor:
        """G, (N, n, E), at least 0; a zero leaves the expert out."""
        return F.relu(self.router(s))

    def forward(self, s: Tensor) -> Tensor:
        """(N, n, d) to (N, n, d)."""
        hidden = F.silu(self.rise(s)).unflatten(-1, (self.experts, -1))  # (N, n, E, hidden)
        output: Tensor = self.fall((hidden * self.gates(s).unsqueeze(-1)).flatten(2))
        return output


class RankMixerLayer(nn.Module):
    """Token mixing, then the FFNs; post-norm, as published."""

    def __init__(self, config: RankMixerConfig, dropout: float):
        super().__init__()
        tokens, width, hidden = config.tokens, config.dim, config.ffn_multiple * config.dim
        self.ffn = (
            SparseFFN(tokens, width, hidden // config.experts, config.experts)
            if config.experts
            else TokenFFN(tokens, width, hidden, dropout=dropout)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, n, d) to (N, n, d)."""
        s = self.norms[0](mix_tokens(x) + x)
        out: Tensor = self.norms[1](self.ffn(s) + s)
        return out


class RankMixer(Backbone):
    """Layers over even shares of all embeddings."""

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        config = model.rankmixer
        self.tokenizer = SplitTokenizer(widths, config.tokens, config.dim)
        self.layers = nn.Sequential(*(RankMixerLayer(config, model.dropout) for _ in range(config.layers)))
        self.width = config.dim

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, d)."""
        of_request, of_candidate = self.tokenizer(blocks)
        x = torch.cat([blocks.batch.expand(of_request), of_candidate], dim=1)
        output: Tensor = self.layers(x).mean(1)
        return output
