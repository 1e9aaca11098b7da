"""Layers that several models share: plain and token-specific linear maps, feed-forward nets, attention over tokens.

Shapes: B rows (requests or candidates), n tokens, d width, R requests, N candidates.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import NAIVE, NARROW, attend_part
from models.batches import Batch

NARROW_ROW = 32  # elements: SiLU of strided rows as short as these is not vectorised on CPU


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


class PReLU(nn.PReLU):
    """PReLU (He et al. 2015) with one slope, whose gradient costs one pass on CPU where torch's takes ten."""

    def forward(self, x: Tensor) -> Tensor:
        """(…) to (…)."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        activated: Tensor = _LeakyRelu.apply(x, self.weight)
        return activated


class _LeakyRelu(torch.autograd.Function):
    """x where it is positive and a x elsewhere, for a slope a of one element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = float(slope)
        return F.leaky_relu(x, ctx.slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        of_slope = torch.dot(gradient.flatten(), (x - F.relu(x)).flatten())
        return torch.ops.aten.leaky_relu_backward(gradient, x, ctx.slope, False), of_slope.reshape(1)


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
            bias = None if self.bias is None else self.bias.flatten()
            return F.linear(x, self.weight.squeeze(0).t(), bias)
        return self.by_token(x.transpose(0, 1), start).transpose(0, 1)

    def by_token(self, x: Tensor, start: int = 0) -> Tensor:
        """`forward` of (k, B, width) to (k, B, out), where each token has a map of its own."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if x.shape[0] < len(weight):  # the gradient of a slice is a copy of the whole with zeros
            maps = slice(start, start + x.shape[0])
            weight, bias = weight[maps], None if bias is None else bias[maps]
        return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


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
        if not self.rise.specific:
            return self.fall(self._activated(self.rise(x)))
        hidden = self._activated(self.rise.by_token(x.transpose(0, 1), start))
        return self.fall.by_token(hidden, start).transpose(0, 1)

    def _activated(self, hidden: Tensor) -> Tensor:
        if self.gated:
            gate, rest = hidden.chunk(2, dim=-1)
            if hidden.device.type == "cpu" and gate.shape[-1] <= NARROW_ROW:
                gate, rest = hidden.unflatten(-1, (2, -1)).movedim(-2, 0).contiguous()
            hidden = F.silu(gate) * rest
        else:
            hidden = F.silu(hidden)
        activated: Tensor = self.dropout(hidden)
        return activated


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
    products = q.shape[2] * k.shape[2] * q.shape[-1]
    few = q.device.type == "cuda" and k.shape[2] <= NARROW  # fused kernels there fill tiles of 64 tokens or more
    if torch.is_grad_enabled() and (few or (q.device.type == "cpu" and products >= NAIVE)):
        q = q if scale is None else q * (scale * q.shape[-1] ** 0.5)
        return attend_part(q, k, v)[0].transpose(1, 2).flatten(-2)
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(-2)
