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
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attend

from models.batches import Batch
from models.inputs import Blocks
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
    mean: Tensor  # (1, d), of the last block's outputs

    @property
    def size_bytes(self) -> int:
        """Memory that the tensors hold."""
        tensors = [self.events, self.sequence, self.mean, *(t for b in self.blocks for t in (b.k, b.v, b.output))]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


class OneTransCache:
    """Stage I of users by hand, for a model of the zoo that is a OneTrans of any form.

    Args:
        model: in evaluation mode; its weights must not change while states of it are in use.
        half: keep states in float16, half the memory. What is kept is rounded before it is used, on a first request
            as on later ones, so that a state scores the same however it came about.

    Raises:
        ModelError: another architecture, or full attention.
    """

    def __init__(self, model: RankingModel, half: bool = False):
        if not isinstance(model.network, OneTrans):
            raise ModelError(f"model {model.name!r} has no stage I to keep; a cache takes onetrans and its forms")
        if not model.network.causal:
            raise ModelError("model.onetrans.causal = false lets behaviours read candidates; a cache needs true")
        self.model, self.network, self.half = model, model.network, half

    @torch.inference_mode()
    def score(self, batch: Batch, state: UserState | None = None, new: int = 0) -> tuple[Tensor, UserState]:
        """`model.score(batch)` of one request, and its user's state for the next.

        Args:
            batch: the request with its user's whole history, which cross features and the candidate-specific sequence
                read, whatever is cached.
            state: the user's, from an earlier request; None for all of stage I.
            new: how many of the history's newest behaviours `state` lacks.

        Returns:
            Probabilities (N, T), and the state that covers the history.
        """
        if batch.requests != 1:
            raise ModelError(f"a user's state takes one request at a time, the batch has {batch.requests}")
        blocks = self.model.inputs(batch)
        if state is None or new:
            state = self._extended(state, blocks, new)
        return self.model.probabilities(self.model.logits(blocks, side=self._side(state))), state

    def _side(self, state: UserState) -> SequenceSide:
        keys = tuple((self._used(block.k), self._used(block.v)) for block in state.blocks)
        exists = tuple(torch.ones(1, k.shape[2], dtype=torch.bool, device=k.device) for k, _ in keys)
        return SequenceSide(keys, exists, state.mean, state.origin + len(state.layout))

    def _extended(self, old: UserState | None, blocks: Blocks, new: int) -> UserState:
        tokens, batch = self.network.sequence, blocks.batch
        count = int(batch.behaviour_mask.sum())  # histories lie at the start of their row
        added = slice(count - new if old is not None else 0, count)
        sequence = tokens.sequence_of(batch)[:, added]
        events = self._kept(tokens.events(replace(blocks, behaviours=blocks.behaviours[:, added]), sequence))
        first = 0
        if old is not None:
            surplus = max(0, old.events.shape[1] + events.shape[1] - tokens.most_events)
            events = torch.cat([old.events[:, surplus:], events], dim=1)
            sequence = torch.cat([old.sequence[:, surplus:], sequence], dim=1)
            first = old.first + surplus

        order, _ = tokens.order(sequence, torch.ones_like(sequence, dtype=torch.bool))
        length = events.shape[1]
        layout = tuple(first + place if place < length else length - 1 - place for place in order[0].tolist())
        if old is not None and layout[:1] and layout[0] in old.layout:
            gone = old.layout.index(layout[0])
            origin, kept = old.origin + gone, _common(old.layout[gone:], layout)
        else:
            old, origin, kept = None, 0, 0
        caches = tuple(self._blocks(tokens.arrange(self._used(events), order), origin, origin + kept, old))
        last = self._used(caches[-1].output)
        mean = self.network.mean(last, torch.ones(last.shape[:2], dtype=torch.bool, device=last.device))
        return UserState(events, sequence, first, layout, origin, caches, mean)

    def _blocks(self, x: Tensor, start: int, valid: int, old: UserState | None) -> Iterator[BlockCache]:
        """Each block's new cache, from tokens x (1, n, d) at positions start …; those before `valid` are known."""
        end = start + x.shape[1]
        for number, (block, width) in enumerate(zip(self.network.stack, self.network.widths_kept, strict=True)):
            position = torch.arange(start, end, device=x.device)
            rotation = block.rotation(position)
            fresh = block.normed(x[:, valid - start :])
            k, v = (self._kept(part) for part in block.keys(fresh, rotation[valid - start :]))
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
            answer = partial(attend, key=self._used(k), value=self._used(v), attn_mask=mask)
            asked = x[:, known - start :]
            outputs.append(self._kept(block.update(asked, block.normed(asked), rotation[known - start :], answer)))
            output = torch.cat(outputs, dim=1)
            yield BlockCache(start, end, k, v, output)
            x, start, valid = self._used(output), first, known

    def _kept(self, x: Tensor) -> Tensor:
        """A copy as a state holds it, which keeps no larger tensor alive."""
        return x.to(torch.float16 if self.half else x.dtype, copy=True, memory_format=torch.contiguous_format)

    def _used(self, x: Tensor) -> Tensor:
        """In the precision that the blocks compute in."""
        if not self.half:
            return x
        device = x.device.type
        return x.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32)


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the longest common start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
