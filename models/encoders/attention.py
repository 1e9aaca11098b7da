"""A pre-norm Transformer block over histories, whose candidates read a request's memory without copying it.

Shapes: R requests, C candidates of the longest list, m queries, s keys, d width, H heads; … any leading dimensions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import mlp


@dataclass(frozen=True)
class Memory:
    """Keys and values of a sequence, (…, H, s, d/H) each, and which of them are there, (…, s)."""

    keys: Tensor
    values: Tensor
    mask: Tensor


class AttentionBlock(nn.Module):
    """x ← x + W_O MHA(LN(x), LN(y)), x ← x + FFN(LN(x)), for queries x and a sequence y (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, ffn_multiple: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        hidden = ffn_multiple * width
        self.ffn = nn.Sequential(mlp(width, [hidden], dropout), nn.Linear(hidden, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def memory(self, y: Tensor, mask: Tensor) -> Memory:
        """What queries read of a sequence (…, s, d) whose places are there or not, (…, s)."""
        keys, values = (self._split(part) for part in self.key_value(self.norms[0](y)).chunk(2, dim=-1))
        return Memory(keys, values, mask)

    def forward(self, x: Tensor, memory: Memory, allowed: Tensor) -> Tensor:
        """(…, m, d) to (…, m, d); `allowed`, (…, m, s), has at least one key for every query."""
        q = self._split(self.query(self.norms[0](x)))
        read = F.scaled_dot_product_attention(q, memory.keys, memory.values, attn_mask=allowed.unsqueeze(-3))
        return self._rise(x, read)

    def beside(self, x: Tensor, memory: Memory) -> Tensor:
        """(R, C, d) to (R, C, d): each reads all that is there of its request's memory and itself."""
        normed = self.norms[0](x)
        q = self._split(self.query(normed))  # (R, H, C, d/H)
        own_key, own_value = (self._split(part) for part in self.key_value(normed).chunk(2, dim=-1))
        scores = (q @ memory.keys.transpose(-1, -2)).masked_fill(~memory.mask[:, None, None], -torch.inf)
        own = (q * own_key).sum(-1, keepdim=True)  # (R, H, C, 1)
        weights = torch.softmax(torch.cat([scores, own], dim=-1) / q.shape[-1] ** 0.5, dim=-1)
        read = weights[..., :-1] @ memory.values + weights[..., -1:] * own_value
        return self._rise(x, read)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _rise(self, x: Tensor, read: Tensor) -> Tensor:
        x = x + self.out(read.transpose(-3, -2).flatten(-2))
        lifted: Tensor = x + self.ffn(self.norms[1](x))
        return lifted


def reachable(mask: Tensor, causal: bool) -> Tensor:
    """(…, s, s) from (…, s): place i may read itself and every j that is there, not after it where `causal`."""
    places = mask.shape[-1]
    itself = torch.eye(places, dtype=torch.bool, device=mask.device)
    seen = mask.unsqueeze(-2).expand(*mask.shape, places)
    return (seen.tril() if causal else seen) | itself
