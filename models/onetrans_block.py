"""A block of OneTrans (3.3): mixed causal attention and mixed FFN, pre-norm, and the pyramid's schedule (3.4).

Shapes: B rows (requests or candidates), n tokens, d width, H heads, e = d / H.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import RMSNorm, TokenFFN, TokenLinear
from models.shared_attention import Rotation, merge_heads, rotate, split_heads
from uniscale.model_sections import OneTransConfig


class Mixed(nn.Module):
    """A net that S-tokens share and, for each NS-token, one of its own; `mixed` off shares the one among all."""

    def __init__(self, make: Callable[[int, bool], nn.Module], features: int, mixed: bool):
        super().__init__()
        self.sequence = make(1, False)
        self.feature = make(features, True) if mixed else None

    def forward(self, x: Tensor, features: int, start: int) -> Tensor:
        """(B, n, ·) to (B, n, ·): the last `features` of the n are NS-tokens number start …, the others S-tokens."""
        shared: Tensor
        if self.feature is None or not features:
            shared = self.sequence(x)
            return shared
        own: Tensor = self.feature(x[:, -features:], start)
        if x.shape[1] == features:
            return own
        return torch.cat([self.sequence(x[:, :-features]), own], dim=1)


class OneTransBlock(nn.Module):
    """Z = MixedMHA(RMSNorm(X)) + X, X' = MixedFFN(RMSNorm(Z)) + Z, in the two halves that a cache needs apart."""

    def __init__(self, features: int, config: OneTransConfig, dropout: float):
        super().__init__()
        d, hidden = config.dim, config.ffn_multiple * config.dim
        self.heads, self.head_width = config.heads, d // config.heads
        self.norms = nn.ModuleList(RMSNorm(d) for _ in range(2))
        self.query = Mixed(lambda tokens, own: TokenLinear(tokens, d, d, own), features, config.mixed)
        self.key_value = Mixed(lambda tokens, own: TokenLinear(tokens, d, 2 * d, own), features, config.mixed)
        self.ffn = Mixed(lambda tokens, own: TokenFFN(tokens, d, hidden, own, dropout), features, config.mixed)

    def rotation(self, position: Tensor) -> Rotation:
        """Of positions (n,), for `keys` and `update` of every block."""
        return Rotation.of(position, self.head_width)

    def normed(self, x: Tensor) -> Tensor:
        """RMSNorm(X), (B, n, d), which queries, keys and values are made of."""
        normed: Tensor = self.norms[0](x)
        return normed

    def keys(self, normed: Tensor, rotation: Rotation, features: int = 0, start: int = 0) -> tuple[Tensor, Tensor]:
        """k and v, (B, H, n, e) each, of normed tokens whose last `features` are NS-tokens number start …"""
        k, v = self.key_value(normed, features, start).chunk(2, dim=-1)
        return rotate(split_heads(k, self.heads), rotation), split_heads(v, self.heads)

    def update(
        self,
        x: Tensor,
        normed: Tensor,
        rotation: Rotation,
        attention: Callable[[Tensor], Tensor],
        features: int = 0,
        start: int = 0,
    ) -> Tensor:
        """The block's output for tokens (B, n, d); `attention` answers their queries, (B, H, n, e) to the same."""
        q = self.query(normed, features, start)
        z = x + merge_heads(attention(rotate(split_heads(q, self.heads), rotation)))
        output: Tensor = z + self.ffn(self.norms[1](z), features, start)
        return output


def pyramid(longest: int, features: int, config: OneTransConfig) -> tuple[int, ...]:
    """L⁽ⁿ⁾, the S-tokens that block n keeps as queries: linear from L_S to L_NS, the middle ones rounded.

    They depend on the longest history, not on a batch's, so that a request scores the same in any batch.
    """
    layers, multiple = config.layers, config.pyramid_multiple
    if not config.pyramid or layers == 1:
        return (longest,) * layers
    last = min(features, longest)
    slope = (last - longest) / (layers - 1)
    middle = (round((longest + slope * n) / multiple) * multiple for n in range(1, layers - 1))
    return (longest, *(min(longest, max(last, kept)) for kept in middle), last)


def tail(x: Tensor, kept: int) -> Tensor:
    """The last tokens (B, kept, …) of (B, n, …), zeros (false) ahead where n is smaller."""
    padding = (0, 0, kept, 0) if x.dim() == 3 else (kept, 0)
    return F.pad(x, padding)[:, -kept:]
