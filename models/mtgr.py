"""MTGR: HSTU layers over a request's features, behaviours and candidates (Han et al. 2025, 3; Zhai et al. 2024).

Tokens: one a request-level block (static), one a behaviour, one a candidate (item and cross features together) and, as
EST adapts it (est.txt, 6.1.3), the candidate-specific sequence averaged into one more. A layer is

    U, Q, K, V = SiLU(W GroupLN(X)),    Ṽ = (SiLU(Q Kᵀ) ⊙ M / n) V,    X' = MLP(GroupLN(Ṽ ⊙ U)) + X

with layer norms of their own for features, behaviours and candidates. Mask M: features and behaviours are seen by all
and see each other but no candidate; a candidate sees them and its own tokens alone. What differs from the paper:

- every behaviour precedes its request (a row is one request, not a user's day), so none needs a causal mask;
- n counts the tokens that a query sees, not all of the row, or a score would depend on the other candidates' number;
- the read-out is EST's for its baselines: mean of the behaviours beside all other tokens, layer norm, MLP.

Shapes: R requests, N candidates, p tokens of a request, o of a candidate, d width, H heads, e = d / H.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.candidate_history import CandidateHistory
from models.inputs import Blocks, Widths
from models.layers import MixedLinear, mlp
from models.onetrans_tokens import token_map
from models.shared_attention import fold, merge_heads, split_heads, unfold
from models.tokens import Tokenizer
from uniscale.model_sections import ModelConfig
from uniscale.samples import SampleSpec


class GroupNorm(nn.Module):
    """Layer norm with weights of their own for features, behaviours and candidates (GroupLN)."""

    def __init__(self, dim: int, features: int):
        super().__init__()
        self.features = features
        self.of_features, self.of_behaviours, self.of_candidates = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, request: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        """(R, p, d), of which the first tokens are features, and (N, o, d)."""
        features, behaviours = request[:, : self.features], request[:, self.features :]
        return (
            torch.cat([self.of_features(features), self.of_behaviours(behaviours)], dim=1),
            self.of_candidates(candidate),
        )


class HSTULayer(nn.Module):
    """Pointwise gated attention; a candidate's tokens meet the request's without copying them."""

    def __init__(self, dim: int, heads: int, features: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.before, self.after = GroupNorm(dim, features), GroupNorm(dim, features)
        self.project = nn.Linear(dim, 4 * dim)
        self.out = nn.Sequential(mlp(dim, [dim], dropout), nn.Linear(dim, dim))

    def forward(self, request: Tensor, exists: Tensor, candidate: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Request tokens (R, p, d) and which of them exist, (R, p), with candidate tokens (N, o, d), to the same."""
        batch = blocks.batch
        projected = (F.silu(self.project(x)) for x in self.before(request, candidate))
        (u, q, k, v), (own_u, own_q, own_k, own_v) = (
            [split_heads(part, self.heads) for part in x.chunk(4, dim=-1)] for x in projected
        )
        v = v * exists[:, None, :, None]  # what does not exist adds nothing
        seen = exists.sum(1)[:, None, None, None]
        over_request = F.silu(q @ k.transpose(-1, -2)) @ v / seen
        of_shared = unfold(F.silu(fold(own_q, batch) @ k.transpose(-1, -2)) @ v, batch, candidate.shape[1])
        of_own = F.silu(own_q @ own_k.transpose(-1, -2)) @ own_v
        over_all = (of_shared + of_own) / (batch.expand(seen) + candidate.shape[1])
        gated = self.after(merge_heads(over_request * u), merge_heads(over_all * own_u))
        return request + self.out(gated[0]), candidate + self.out(gated[1])


class MTGR(nn.Module):
    """The network over the blocks of `models.inputs`: logits (N, T)."""

    def __init__(self, spec: SampleSpec, widths: Widths, model: ModelConfig):
        super().__init__()
        config, d, dropout = model.mtgr, model.mtgr.dim, model.dropout
        self.features = len(widths.request)
        whole = replace(widths, candidate={"candidate": sum(widths.candidate.values())})  # all its blocks are one token
        self.tokenizer = Tokenizer(whole, d, dropout)
        self.behaviour = token_map(widths.behaviour, d, dropout) if widths.behaviour else None
        self.specific = token_map(widths.behaviour, d, dropout) if widths.behaviour else None
        self.search = CandidateHistory(spec, config.candidate_behaviours)
        self.layers = nn.ModuleList(HSTULayer(d, config.heads, self.features, dropout) for _ in range(config.layers))
        self.norm = GroupNorm(d, self.features)
        own = 2 if widths.behaviour else 1
        self.readout = MixedLinear((self.features + 1) * d, own * d, d)
        self.head = nn.Linear(d, len(spec.tasks))

    def forward(self, blocks: Blocks) -> Tensor:
        """Logits (N, T)."""
        batch = blocks.batch
        whole = torch.cat(list(blocks.candidate.values()), dim=-1)
        request, candidate = self.tokenizer(replace(blocks, candidate={"candidate": whole}))
        exists = torch.ones(request.shape[:2], dtype=torch.bool, device=request.device)
        if self.behaviour is not None and self.specific is not None:
            request = torch.cat([request, self.behaviour(blocks.behaviours)], dim=1)
            exists = torch.cat([exists, batch.behaviour_mask], dim=1)
            pooled = self.specific(self.search.mean(blocks)).unsqueeze(1)
            candidate = torch.cat([pooled, candidate], dim=1)
        for layer in self.layers:
            request, candidate = layer(request, exists, candidate, blocks)
        request, candidate = self.norm(request, candidate)
        there = exists[:, self.features :].unsqueeze(-1)
        mean = (request[:, self.features :] * there).sum(1) / there.sum(1).clamp(min=1)
        of_request = torch.cat([request[:, : self.features].flatten(1), mean], dim=1)
        logits: Tensor = self.head(F.silu(self.readout(of_request, candidate.flatten(1), batch)))
        return logits
