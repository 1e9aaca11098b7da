"""Layers that several models share: plain and token-specific linear maps, feed-forward nets, attention over tokens.

Shapes: B rows (requests or candidates), n tokens, d width, R requests, N candidates.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch


def mlp(width: int, hidden: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear, SiLU (and dropout) for each hidden width: (…, width) to (…, hidden[-1])."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.SiLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = size
    return nn.Sequential(*layers)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (Zhang, Sennrich 2019) in its weight's precision, whatever autocast made of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, d) to (…, d)."""
        return super().forward(x.to(self.weight.dtype))


class MixedLinear(nn.Module):
    """A linear map of [request part; candidate part] that does the request's share once a request.

    W [x_r; x_c] + b = W_r x_r + W_c x_c + b, so expanding W_r x_r instead of x_r saves a factor of the list's length.
    """

    def __init__(self, request_width: int, candidate_width: int, out: int, bias: bool = True):
        super().__init__()
        self.widths = (request_width, candidate_width)
        self.linear = nn.Linear(request_width + candidate_width, out, bias)

    def forward(self, request: Tensor, candidate: Tensor, batch: Batch) -> Tensor:
        """(R, w_r) and (N, w_c) to (N, out)."""
        if not self.widths[0]:
            output: Tensor = self.linear(candidate)
            return output
        of_request, of_candidate = self.linear.weight.split(self.widths, dim=1)
        return batch.expand(F.linear(request, of_request, self.linear.bias)) + F.linear(candidate, of_candidate)


class TokenLinear(nn.Module):
    """One linear map a token: y_i = x_i W_i + b_i (UniScale eq. 1); `specific=False` shares one among all tokens."""

    def __init__(self, tokens: int, width: int, out: int, specific: bool = True, bias: bool = True):
        super().__init__()
        maps = tokens if specific else 1
        bound = 1.0 / math.sqrt(max(width, 1))
        self.weight = nn.Parameter(torch.empty(maps, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(maps, 1, out)) if bias else None
        self.specific = specific

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """(B, k, width) to (B, k, out), where the k tokens are numbers start … start + k - 1."""
        if not self.specific:
            y = x @ self.weight[0]
            return y if self.bias is None else y + self.bias[0]
        maps = slice(start, start + x.shape[1])
        if self.bias is None:
            return torch.bmm(x.transpose(0, 1), self.weight[maps]).transpose(0, 1)
        return torch.baddbmm(self.bias[maps], x.transpose(0, 1), self.weight[maps]).transpose(0, 1)


class TokenFFN(nn.Module):
    """A feed-forward net of its own for each token: (B, n, d) to (B, n, d); `gated` makes it SwiGLU (Shazeer 2020)."""

    def __init__(
        self, tokens: int, width: int, hidden: int, specific: bool = True, dropout: float = 0.0, gated: bool = False
    ):
        super().__init__()
        self.gated = gated
        self.rise = TokenLinear(tokens, width, 2 * hidden if gated else hidden, specific)
        self.fall = TokenLinear(tokens, hidden, width, specific)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """(B, k, d) to (B, k, d), where the k tokens are numbers start … start + k - 1."""
        hidden = self.rise(x, start)
        if self.gated:
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.fall(self.dropout(F.silu(gate) * hidden), start)
        return self.fall(self.dropout(F.silu(hidden)), start)


def mix_tokens(x: Tensor) -> Tensor:
    """Token mixing without parameters (RankMixer, Zhu et al. 2025, 3.3): new token h is slice h of every token.

    (B, n, d) to (B, n, d); each of n tokens is cut into n slices, so n has to divide d.
    """
    return x.unflatten(-1, (x.shape[1], -1)).transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float | None = None) -> Tensor:
    """Multi-head attention among the n tokens of each row: softmax(scale · q kᵀ) v, (B, n, d) each and returned.

    The scale is 1 / √d_head unless given.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, n, d_head)
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(-2)
