"""LONGER, a long-sequence Transformer (Chai et al. 2025): global tokens, token merge, hybrid attention.

- Token merge: K adjacent behaviours pass a small Transformer (InnerTrans) and are concatenated into one
  token. The paper keeps the width K·d; here a linear map brings it to the model's width.
- Global tokens: the target item, the user, a learnt CLS token.
- Hybrid attention: a first, cross-causal layer whose queries are [global; the newest k merged tokens] and whose
  keys are all tokens; then self-causal layers among those queries. A token sees itself and what precedes it
  in the order behaviours, user, CLS, target; no behaviour sees a global token, nothing sees the target.

So everything but the target is computed once a request (the paper's KV cache), and the target token of each candidate
reads the request's keys; its last state is the encoding. Order comes from the behaviours' ages and the causal mask; the
paper's absolute position table is not taken.

Shapes: R requests, N candidates, L the longest history, S = ⌈L / K⌉ merged tokens, g global tokens of a request,
d width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.attention import AttentionBlock, reachable
from models.encoders.base import Encoder
from models.inputs import Blocks, Widths
from uniscale.model_sections import ModelConfig


class Longer(Encoder):
    """Merged behaviours and global tokens through cross-causal, then self-causal attention."""

    per_candidate = True

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        config = model.longer
        self.width, self.merge, self.recent = config.dim, config.merge, config.recent
        sizes = (config.dim, config.heads, config.ffn_multiple, model.dropout)
        self.behaviour = nn.Linear(widths.behaviour, config.dim)
        self.inner = AttentionBlock(*sizes)
        self.merged = nn.Linear(config.merge * config.dim, config.dim)
        self.user = nn.Linear(widths.request["user"], config.dim) if "user" in widths.request else None
        self.cls = nn.Parameter(torch.randn(config.dim) / config.dim**0.5)
        self.item = nn.Linear(widths.candidate["item"], config.dim)
        self.cross = AttentionBlock(*sizes)
        self.rest = nn.ModuleList(AttentionBlock(*sizes) for _ in range(config.layers - 1))

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, d)."""
        batch = blocks.batch
        target = batch.grid(self.item(blocks.candidate["item"]))  # (R, C, d)
        tokens, mask = self.tokens(blocks)  # (R, S, d), (R, S)
        known = self.globals(blocks)  # (R, g, d)
        places, found = self.newest(mask)  # (R, k) each
        there = mask.new_ones(known.shape[:2])
        newest = tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, self.width))

        full, mask = torch.cat([tokens, known], dim=1), torch.cat([mask, there], dim=1)
        after = tokens.shape[1] + torch.arange(known.shape[1], device=places.device)  # places of the global tokens
        rows = torch.cat([places, after.expand(places.shape[0], -1)], dim=1)  # (R, k + g)
        allowed = reachable(mask, causal=True).gather(1, rows.unsqueeze(-1).expand(-1, -1, mask.shape[1]))
        memory = self.cross.memory(full, mask)
        target = self.cross.beside(target, memory)
        x, mask = torch.cat([newest, known], dim=1), torch.cat([found, there], dim=1)
        before = self.cross
        for block in self.rest:
            assert isinstance(block, AttentionBlock)
            x = before(x, memory, allowed)  # the last layer's is never needed: only the target goes on
            before = block
            memory, allowed = block.memory(x, mask), reachable(mask, causal=True)
            target = block.beside(target, memory)
        return batch.ungrid(target)

    def tokens(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Merged tokens, oldest first, (R, S, d), and which of them hold a behaviour, (R, S)."""
        x, mask = self.behaviour(blocks.behaviours), blocks.batch.behaviour_mask
        groups = (mask.shape[1] + self.merge - 1) // self.merge
        missing = groups * self.merge - mask.shape[1]
        x = F.pad(x, (0, 0, 0, missing)).unflatten(1, (groups, self.merge))  # (R, S, K, d)
        mask = F.pad(mask, (0, missing)).unflatten(1, (groups, self.merge))
        x = self.inner(x, self.inner.memory(x, mask), reachable(mask, causal=False)) * mask.unsqueeze(-1)
        return self.merged(x.flatten(2)), mask.any(-1)

    def globals(self, blocks: Blocks) -> Tensor:
        """Global tokens that depend on the request alone, (R, g, d): the user, where there is one, and CLS."""
        cls = self.cls.expand(blocks.batch.requests, 1, -1)
        if self.user is None:
            return cls
        return torch.cat([self.user(blocks.request["user"]).unsqueeze(1), cls], dim=1)

    def newest(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Places of the k newest merged tokens, oldest first, (R, k), and whether there is one."""
        places = mask.sum(1, keepdim=True) - self.recent + torch.arange(self.recent, device=mask.device)
        return places.clamp(min=0), places >= 0
