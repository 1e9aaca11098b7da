"""OneTrans across requests (3.5.1): a user's stage I is kept, extended by new behaviours, and read by every request.

Exactly as a full recomputation, for one user at a time. What a new behaviour leaves valid, block by block:

- A token, its key and its value depend on the event and its place alone: rotary positions count from the first event
  ever cached, so no key is rotated again. New ones are appended.
- A block's output at a position depends on all keys at and before it. While the block's keys still start where they
  did, outputs are append-only too, and a block computes the new positions alone.
- The pyramid moves that start: block n reads the last L⁽ⁿ⁻¹⁾ tokens, so once a history outgrows L⁽ⁿ⁻¹⁾ each new event
  pushes the oldest key out of its sight. Every output of block n then lacks one term and is computed again, from keys
  and values that were kept; the blocks after it get new inputs and are computed in full, L⁽ⁿ⁾ tokens at most.
- The history's own limit is the same step ahead of the first block: once it slides, tokens and the first block's keys
  are all that stays. A cache is worth most for histories below `max_behaviours`.
- Timestamp-agnostic fusion puts a new event at the end of its own sequence: all that follows it is computed again.

So blocks 1 and 2 (L⁽⁰⁾ = L⁽¹⁾ = L_S, the widest ones) cost O(ΔL) per request until the history is full, as the paper
has it; O(ΔL) for all blocks would need a pyramid whose tails do not move.

Shapes: L behaviours, L_S S-tokens, d width, H heads, e = d / H; one user, so the first dimension is 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attend

from models.batches import Batch
from models.onetrans import OneTrans, SequenceSide
from models.ranking import RankingModel
from uniscale.errors import ModelError


@dataclass(frozen=True)
class BlockCache:
    """What one block keeps: keys and values from position `start` on, and its last outputs up to position `end`."""

    start: int
    end: int
    k: Tensor  # (1, H, end - start, e)
    v: Tensor
    output: Tensor  # (1, L⁽ⁿ⁾, d)

    @property
    def first_output(self) -> int:
        """Position of the first output kept."""
        return self.end - self.output.shape[1]


@dataclass(frozen=True)
class UserState:
    """A user's stage I. Immutable: an extended state is a new one, and shares what has not changed."""

    events: Tensor  # (1, L, d), oldest first, at most the history's limit
    sequence: Tensor  # (1, L), which sequence each belongs to
    first: int  # number of the oldest event kept, counted from the first ever given
    layout: tuple[int, ...]  # the S-tokens in their order: numbers of events, or -1 - i for the i-th [SEP]
    origin: int  # position of the first S-token
    blocks: tuple[BlockCache, ...]
    side: SequenceSide


class OneTransCache:
    """Stage I of users by hand, for a model of the zoo that is a OneTrans of any form.

    Args:
        model: in evaluation mode; its weights must not change while states of it are in use.

    Raises:
        ModelError: another architecture, or full attention.
    """

    def __init__(self, model: RankingModel):
        if not isinstance(model.network, OneTrans):
            raise ModelError(f"model {model.name!r} has no stage I to keep; a cache takes onetrans and its forms")
        if not model.network.causal:
            raise ModelError("model.onetrans.causal = false lets behaviours read candidates; a cache needs true")
        self.model, self.network = model, model.network

    @torch.inference_mode()
    def start(self, batch: Batch) -> UserState:
        """State of the one request's user, from its whole history."""
        return self._extended(None, batch)

    @torch.inference_mode()
    def extend(self, state: UserState, batch: Batch) -> UserState:
        """The state after the behaviours of the one request of a batch, which are the new ones alone, oldest first."""
        return self._extended(state, batch)

    def score(self, state: UserState, batch: Batch) -> Tensor:
        """`model.score(batch)` for one request of the state's user: probabilities (N, T) by stage II alone.

        The batch still holds the whole history: cross features and the candidate-specific sequence read it.
        """
        _one_request(batch)
        return self.model.score(batch, side=state.side)

    def _extended(self, old: UserState | None, batch: Batch) -> UserState:
        _one_request(batch)
        tokens = self.network.sequence
        count = int(batch.behaviour_mask.sum())  # histories lie at the start of their row
        sequence = tokens.sequence_of(batch)[:, :count]
        events = tokens.events(self.model.inputs(batch), tokens.sequence_of(batch))[:, :count]
        first = 0
        if old is not None:
            events, sequence = torch.cat([old.events, events], dim=1), torch.cat([old.sequence, sequence], dim=1)
            first = old.first
        surplus = max(0, events.shape[1] - tokens.most_events)
        events, sequence, first = events[:, surplus:], sequence[:, surplus:], first + surplus

        order, _ = tokens.order(sequence, torch.ones_like(sequence, dtype=torch.bool))
        length = events.shape[1]
        layout = tuple(first + place if place < length else length - 1 - place for place in order[0].tolist())
        if old is not None and layout[:1] and layout[0] in old.layout:
            gone = old.layout.index(layout[0])
            origin, kept = old.origin + gone, _common(old.layout[gone:], layout)
        else:
            old, origin, kept = None, 0, 0
        x = tokens.arrange(events, order)
        blocks = tuple(self._blocks(x, origin, origin + kept, old))
        end = origin + len(layout)
        keys = tuple((block.k, block.v) for block in blocks)
        exists = tuple(torch.ones(1, k.shape[2], dtype=torch.bool, device=k.device) for k, _ in keys)
        last = blocks[-1].output
        mean = self.network.mean(last, torch.ones(last.shape[:2], dtype=torch.bool, device=last.device))
        return UserState(events, sequence, first, layout, origin, blocks, SequenceSide(keys, exists, mean, end))

    def _blocks(self, x: Tensor, start: int, valid: int, old: UserState | None) -> Iterator[BlockCache]:
        """Each block's new cache, from tokens x (1, n, d) at positions start …; those before `valid` are known."""
        end = start + x.shape[1]
        for number, (block, width) in enumerate(zip(self.network.stack, self.network.widths_kept, strict=True)):
            position = torch.arange(start, end, device=x.device)
            k, v = block.keys(x[:, valid - start :], position[valid - start :])
            first = max(start, end - width)  # of the positions that ask
            known = first  # outputs before this position are still right
            outputs = []
            if old is not None:
                cache = old.blocks[number]
                seen = slice(start - cache.start, valid - cache.start)
                k, v = torch.cat([cache.k[:, :, seen], k], dim=2), torch.cat([cache.v[:, :, seen], v], dim=2)
                if start == cache.start:  # no key has left
                    known = max(first, valid)
                    outputs = [cache.output[:, first - cache.first_output : known - cache.first_output]]
            asking = position[known - start :]
            mask = asking.unsqueeze(1) >= position
            answer = partial(attend, key=k, value=v, attn_mask=mask)
            outputs.append(block.update(x[:, known - start :], asking, answer))
            x = torch.cat(outputs, dim=1)
            yield BlockCache(start, end, k, v, x)
            start, valid = first, known


def _one_request(batch: Batch) -> None:
    if batch.requests != 1:
        raise ModelError(f"a user's state takes one request at a time, the batch has {batch.requests}")


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the longest common start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
