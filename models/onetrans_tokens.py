"""Tokens of OneTrans (3.2): S-tokens from behaviours, NS-tokens from all other features.

S-tokens are made of what never changes once an event has happened (`Blocks.events`) and lie at the end of their row, so
that the newest behaviours of all requests share their columns and the pyramid is a slice.

- Timestamp-aware fusion keeps the order of time and adds an embedding of the sequence's type.
- Timestamp-agnostic fusion puts one sequence after the other, the strongest first, with a learnt [SEP] after each but
  the last. A sequence without events keeps its [SEP]: k of them before a token always mean sequence k.
- An event of a type that `behaviour_order` does not name belongs to a sequence ahead of all others.
- All sequences have the same raw columns here, so one projection (an MLP) serves all of them.

Shapes: R requests, N candidates, L behaviours, L_S S-tokens, L_NS NS-tokens, d width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch
from models.hhsft import Tokenizer
from models.inputs import Blocks, Widths
from models.layers import MixedLinear, mlp
from uniscale.hashing import hash_many
from uniscale.model_sections import OneTransConfig
from uniscale.samples import SampleSpec


def token_map(width: int, out: int, dropout: float) -> nn.Sequential:
    """An MLP with one hidden layer of the token's width."""
    return nn.Sequential(mlp(width, [out], dropout), nn.Linear(out, out))


class SequenceTokens(nn.Module):
    """S-tokens of every request, (R, L_S, d), and which of them exist, (R, L_S)."""

    types: Tensor

    def __init__(self, spec: SampleSpec, widths: Widths, config: OneTransConfig, dropout: float):
        super().__init__()
        order = config.behaviour_order
        self.most_events = spec.max_behaviours
        self.aware = config.fusion == "timestamp_aware"
        names = [feature.name for feature in spec.select("behaviour", ("id",))]
        self.type_column = names.index("behaviour_type") if "behaviour_type" in names else None
        self.register_buffer("types", torch.from_numpy(hash_many(order)), persistent=False)
        self.project = token_map(widths.event, config.dim, dropout) if widths.event else None
        self.of_type = nn.Embedding(len(order) + 1, config.dim) if self.aware else None
        separated = not self.aware and config.sep
        self.separators = len(order) if separated else 0
        self.sep = nn.Parameter(torch.randn(config.dim) / config.dim**0.5) if separated else None
        self.dim = config.dim

    @property
    def most(self) -> int:
        """L_S of the longest history."""
        return self.most_events + self.separators

    def sequence_of(self, batch: Batch) -> Tensor:
        """Which sequence each behaviour belongs to, (R, L): a place in the order from 1, 0 for another type."""
        if self.type_column is None:
            return torch.zeros_like(batch.behaviour_mask, dtype=torch.int64)
        matches = batch.behaviour_ids[:, :, self.type_column].unsqueeze(-1) == self.types  # (R, L, types)
        return (matches * torch.arange(1, len(self.types) + 1, device=matches.device)).sum(-1)

    def events(self, blocks: Blocks, sequence: Tensor) -> Tensor:
        """A token a behaviour, in the batch's order, (R, L, d)."""
        if self.project is None:
            return torch.zeros(*sequence.shape, self.dim, device=sequence.device)
        tokens: Tensor = self.project(blocks.events)
        return tokens if self.of_type is None else tokens + self.of_type(sequence)

    def order(self, sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Order of the S-tokens and which of them exist, (R, L_S) each.

        The order points into the L behaviours followed by the [SEP]s; what does not exist comes first.
        """
        key = torch.where(mask, 0 if self.aware else 2 * sequence, -1)
        if self.separators:
            between = 2 * torch.arange(self.separators, device=key.device) + 1
            key = torch.cat([key, between.expand(key.shape[0], -1)], dim=1)
        key, order = torch.sort(key, dim=1, stable=True)
        return order, key >= 0

    def arrange(self, events: Tensor, order: Tensor) -> Tensor:
        """Events (R, L, d) and the [SEP]s in an order, (R, L_S, d)."""
        if self.sep is not None:
            events = torch.cat([events, self.sep.to(events.dtype).expand(events.shape[0], self.separators, -1)], dim=1)
        return events.gather(1, order.unsqueeze(-1).expand(-1, -1, events.shape[-1]))

    def forward(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """(R, L_S, d) and (R, L_S)."""
        sequence = self.sequence_of(blocks.batch)
        order, exists = self.order(sequence, blocks.batch.behaviour_mask)
        return self.arrange(self.events(blocks, sequence), order), exists


class AutoSplit(nn.Module):
    """NS = split(MLP(concat(all features)), L_NS): every token mixes request and candidate, so all are (N, …)."""

    def __init__(self, widths: Widths, tokens: int, dim: int, dropout: float):
        super().__init__()
        self.request, self.candidate = 0, tokens
        self.first = MixedLinear(sum(widths.request.values()), sum(widths.candidate.values()), tokens * dim)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(tokens * dim, tokens * dim)

    def forward(self, blocks: Blocks) -> tuple[Tensor | None, Tensor]:
        """None and (N, L_NS, d)."""
        request, candidate = (torch.cat(list(level.values()), dim=-1) for level in (blocks.request, blocks.candidate))
        hidden = self.dropout(F.silu(self.first(request, candidate, blocks.batch)))
        return None, self.last(hidden).unflatten(-1, (self.candidate, -1))


class GroupWise(nn.Module):
    """NS_i = MLP_i(concat(g_i)), the groups being the semantic blocks; the request's come first, once a request."""

    def __init__(self, widths: Widths, dim: int, dropout: float):
        super().__init__()
        self.request, self.candidate = len(widths.request), len(widths.candidate)
        self.tokenizer = Tokenizer(widths, dim, dropout)

    def forward(self, blocks: Blocks) -> tuple[Tensor | None, Tensor]:
        """(R, ·, d) and (N, ·, d)."""
        tokens: tuple[Tensor, Tensor] = self.tokenizer(blocks)
        return tokens
