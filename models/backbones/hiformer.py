"""HiFormer (Gui et al. 2023): heterogeneous attention with composite, low-rank keys and values.

    q_i^h = e_i Q_i^h                                       a projection of its own for each feature
    [k̂_1^h, …, k̂_n^h] = concat(e_1, …, e_n) L_K^h (R_K^h)ᵀ  every key made of all features, at low rank; values alike
    e_i ← e_i + concat_h softmax_j(q_i^h · k̂_j^h / √d_h) v̂_j^h, e_i ← e_i + FFN_i(e_i)

A learnt task token stands among the features'; the last layer computes it alone (the paper's pruning), and it is
the representation. One task token serves the heads of all tasks. Pre-norm and SiLU, as in this zoo's other layers, and
one rank for keys and values are ours.

Shapes: R requests, N candidates, n tokens with the task's, d width, H heads, r rank.
"""

import torch
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.batches import Batch
from models.inputs import Blocks, Widths
from models.layers import MixedLinear, TokenFFN, TokenLinear, attend
from models.tokens import FeatureTokenizer
from uniscale.model_sections import HiFormerConfig, ModelConfig


class Composite(nn.Module):
    """concat(e) L^h (R^h)ᵀ for every head: n tokens of width d / H each, all from all features."""

    def __init__(self, counts: tuple[int, int], width: int, heads: int, rank: int):
        super().__init__()
        tokens = sum(counts)
        self.shape = (heads, tokens, width // heads)
        self.left = MixedLinear(counts[0] * width, counts[1] * width, heads * rank, bias=False)
        self.right = nn.Parameter(torch.randn(heads, rank, tokens * width // heads) / rank**0.5)

    def forward(self, of_request: Tensor, of_candidate: Tensor, batch: Batch) -> Tensor:
        """(R, n_r, d) and (N, n_c, d) to (N, n, d), the heads side by side."""
        low = self.left(of_request.flatten(1), of_candidate.flatten(1), batch).unflatten(-1, (self.shape[0], -1))
        composed = torch.einsum("nhr,hro->nho", low, self.right).unflatten(-1, self.shape[1:])  # (N, H, n, d / H)
        return composed.transpose(1, 2).flatten(2)


class HiFormerLayer(nn.Module):
    """One layer; of its n tokens the first `counts[0]` come once a request, the last `queries` are updated."""

    def __init__(self, counts: tuple[int, int], queries: int, config: HiFormerConfig, dropout: float):
        super().__init__()
        width = config.dim
        self.heads, self.queries = config.heads, queries
        self.query = TokenLinear(queries, width, width)
        self.key, self.value = (Composite(counts, width, config.heads, config.rank) for _ in range(2))
        self.ffn = TokenFFN(queries, width, config.ffn_multiple * width, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, of_request: Tensor, of_candidate: Tensor, batch: Batch) -> Tensor:
        """(R, n_r, d) and (N, n_c, d) to (N, queries, d)."""
        parts = self.norms[0](of_request), self.norms[0](of_candidate)
        asked = max(self.queries - of_candidate.shape[1], 0)  # of the request's tokens: all or none
        e, q = of_candidate[:, -self.queries :], self.query(parts[1][:, -self.queries :], start=asked)
        if asked:
            e = torch.cat([batch.expand(of_request), e], dim=1)
            q = torch.cat([batch.expand(self.query(parts[0])), q], dim=1)
        e = e + attend(q, self.key(*parts, batch), self.value(*parts, batch), self.heads)
        return e + self.ffn(self.norms[1](e))


class HiFormer(Backbone):
    """Layers over a token a feature and a task token."""

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        config = model.hiformer
        self.tokenizer = FeatureTokenizer(widths, config.dim)
        self.task = nn.Parameter(torch.randn(config.dim) / config.dim**0.5)
        of_request, of_candidate = self.tokenizer.counts[0], self.tokenizer.counts[1] + 1
        tokens = of_request + of_candidate
        self.layers = nn.ModuleList(
            HiFormerLayer(
                (0, tokens) if number else (of_request, of_candidate),
                1 if number == config.layers - 1 else tokens,
                config,
                model.dropout,
            )
            for number in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.width = config.dim

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, d), the task token."""
        batch = blocks.batch
        of_request, of_candidate = self.tokenizer(blocks)
        e = torch.cat([of_candidate, self.task.expand(batch.candidates, 1, -1)], dim=1)
        for layer in self.layers:
            e = layer(of_request, e, batch)
            of_request = of_request[:, :0]  # from here on every token is a candidate's
        output: Tensor = self.norm(e[:, 0])
        return output
