"""OneTrans: one causal Transformer over behaviours and features (Zhang et al. 2026, 3.1 to 3.5), and its D and F forms.

X⁽⁰⁾ = [S-tokens; NS-tokens]; a block is Z = MixedMHA(RMSNorm(X)) + X, X' = MixedFFN(RMSNorm(Z)) + Z: S-tokens share one
set of weights, each NS-token has its own. The causal order lets the work be done in two stages (3.5.1), in training as
in serving: stage I is all S-tokens once a request, stage II the NS-tokens, which read the S-side's keys and values of
every block. Request-level NS-tokens (group-wise tokenizer) come before the candidates', so they too are computed once.

What the paper leaves open and how it is filled:

- positions are rotary, so only differences count: neither the history's length nor the request's time shifts a cached
  key; times reach the NS-side alone, through the candidate-specific sequence;
- no output projection after attention, as only W_Q, W_K, W_V are named; SiLU in the FFN;
- the read-out is EST's for its baselines (est.txt, 6.1.4): RMSNorm, mean of the last S-tokens beside all NS-tokens,
  then an MLP;
- the candidate-specific sequence (6.1.3): the base form averages it and D pools it by DIN into one more NS-token, the
  first of the candidate's; F puts its K tokens, oldest first, between the S-tokens and all NS-tokens, which are the
  candidate's own from there on. F's K tokens are beyond the pyramid, which narrows the request's sequence alone;
- `causal` off (Table, Full attention) makes S-tokens read the candidate, so nothing is shared: each candidate carries
  its own S-side. That ablation costs a copy of the history per candidate and cannot be cached.

Shapes: R requests, N candidates, L_S S-tokens, L_NS NS-tokens, K behaviours of B_c, d width, H heads, e = d / H.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attend

from models.candidate_history import CandidateHistory, pick
from models.encoders.din import LocalActivation
from models.frozen_content import Content
from models.inputs import Blocks, Widths
from models.layers import MixedLinear, RMSNorm
from models.onetrans_block import OneTransBlock, pyramid, tail
from models.onetrans_tokens import AutoSplit, GroupWise, SequenceTokens, token_map
from models.shared_attention import attend_shared
from uniscale.model_sections import ModelConfig
from uniscale.samples import SampleSpec

Form = Literal["mean", "din", "full"]
KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SequenceSide:
    """Stage I of a batch: all that stage II reads of the S-side."""

    keys: tuple[KeyValue, ...]  # of each block: k and v, (R, H, L⁽ⁿ⁻¹⁾, e)
    exists: tuple[Tensor, ...]  # of each block: which of them exist, (R, L⁽ⁿ⁻¹⁾)
    mean: Tensor  # (R, d), of the last block's tokens
    end: int  # position of the first token after the S-tokens


class OneTrans(nn.Module):
    """The network over the blocks of `models.inputs`: logits (N, T).

    Args:
        spec, widths, model: as for every entry of the zoo.
        form: what becomes of the candidate-specific sequence: mean (OneTrans), din (OneTrans-D), full (OneTrans-F).
    """

    def __init__(self, spec: SampleSpec, widths: Widths, model: ModelConfig, form: Form = "mean"):
        super().__init__()
        config, dropout = model.onetrans, model.dropout
        self.causal, self.form = config.causal, form
        self.sequence = SequenceTokens(spec, widths, config, dropout)
        self.features: AutoSplit | GroupWise
        if config.tokenizer == "auto_split":
            self.features = AutoSplit(widths, config.ns_tokens, config.dim, dropout)
        else:
            self.features = GroupWise(widths, config.dim, dropout)
        self.search = CandidateHistory(spec, config.candidate_behaviours)
        self.history = token_map(widths.behaviour, config.dim, dropout) if widths.behaviour else None
        pools = form == "din" and widths.behaviour > 0
        self.din = LocalActivation(widths.candidate["item"], widths.behaviour) if pools else None
        known = self.history is not None
        pooled = int(known and form != "full")
        self.own_sequence = config.candidate_behaviours if known and form == "full" else 0  # a candidate's own S-tokens
        # Nothing of a request's NS-tokens can be shared once they have a candidate's S-tokens before them.
        self.shared = self.features.request if self.causal and not self.own_sequence else 0
        tokens = self.features.request + self.features.candidate + pooled  # L_NS
        self.widths_kept = pyramid(self.sequence.most, tokens, config)
        self.blocks = nn.ModuleList(OneTransBlock(tokens, config, dropout) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim)
        of_request = self.shared + self.causal
        of_candidate = tokens - self.shared + (not self.causal) + (self.own_sequence > 0)
        self.readout = MixedLinear(of_request * config.dim, of_candidate * config.dim, config.dim)
        self.head = nn.Linear(config.dim, len(spec.tasks))

    @property
    def stack(self) -> list[OneTransBlock]:
        """The blocks, first to last."""
        return cast(list[OneTransBlock], list(self.blocks))

    def forward(self, blocks: Blocks, side: SequenceSide | None = None) -> Tensor:
        """Logits (N, T); `side` is stage I of the batch's requests where it is known already."""
        request, candidate = self.features(blocks)
        own = self.candidate_specific(blocks)
        batch = blocks.batch
        if request is not None and not self.shared:
            candidate, request = torch.cat([batch.expand(request), candidate], dim=1), None
        place = 0 if self.own_sequence else candidate.shape[1] - self.features.candidate
        if own is not None:
            candidate = torch.cat([candidate[:, :place], own, candidate[:, place:]], dim=1)
        exists = self.own_exists(blocks, candidate.shape[1])
        if not self.causal:
            return self.full_attention(blocks, candidate, exists)
        return self.stage_two(blocks, self.stage_one(blocks) if side is None else side, request, candidate, exists)

    def candidate_specific(self, blocks: Blocks) -> Tensor | None:
        """Tokens made of B_c: one (mean, din) or K (full), (N, ·, d); None without any history."""
        batch = blocks.batch
        if self.history is None:
            return None
        if self.form == "full":
            place, found = self.search.places(batch, Content.of(batch))
            return pick(self.history(blocks.behaviours), place, batch) * found.unsqueeze(-1)
        if self.din is None:
            pooled = self.search.mean(blocks)
        else:
            pooled = self.din(blocks.candidate["item"], blocks, self.search.mask(batch))
        token: Tensor = self.history(pooled)
        return token.unsqueeze(1)

    def own_exists(self, blocks: Blocks, tokens: int) -> Tensor:
        """Which of a candidate's tokens exist, (N, ·): in the full form a short history leaves some out."""
        batch = blocks.batch
        known = batch.behaviour_mask.sum(1, keepdim=True)  # (R, 1)
        exists = torch.arange(self.own_sequence, device=known.device) < known
        return F.pad(batch.expand(exists), (0, tokens - self.own_sequence), value=True)

    def stage_one(self, blocks: Blocks) -> SequenceSide:
        """S-tokens through all blocks, once a request; block n keeps the last L⁽ⁿ⁾ of them as queries."""
        x, exists = self.sequence(blocks)
        keys, masks = [], []
        most = self.sequence.most
        position = torch.arange(-x.shape[1], 0, device=x.device)
        rotation = self.stack[0].rotation(position)
        for block, kept in zip(self.stack, self.widths_kept, strict=True):
            normed = block.normed(x)
            k, v = block.keys(normed, rotation)
            keys.append((k, v))
            masks.append(exists)
            key_exists, key_position = exists, position
            if kept < most:
                x, normed, exists, most = tail(x, kept), tail(normed, kept), tail(exists, kept), kept
                position, rotation = torch.arange(-kept, 0, device=x.device), rotation.tail(kept)
            later = position.unsqueeze(1) > key_position  # (L⁽ⁿ⁾, L⁽ⁿ⁻¹⁾)
            itself = position.unsqueeze(1) == key_position  # keeps the rows of empty positions finite
            mask = (later & key_exists.unsqueeze(1) | itself).unsqueeze(1)
            answer = partial(attend, key=k, value=v, attn_mask=mask)
            x = block.update(x, normed, rotation, answer)
        return SequenceSide(tuple(keys), tuple(masks), self.mean(x, exists), end=0)

    def mean(self, x: Tensor, exists: Tensor) -> Tensor:
        """Mean of the normalised tokens that exist, (B, d); zero where none does."""
        of_mask = exists.unsqueeze(-1)
        return (self.norm(x) * of_mask).sum(1) / of_mask.sum(1).clamp(min=1)

    def stage_two(
        self, blocks: Blocks, side: SequenceSide, request: Tensor | None, candidate: Tensor, exists: Tensor
    ) -> Tensor:
        """NS-tokens of requests (R, ·, d) and candidates (N, ·, d) against the S-side: logits (N, T)."""
        batch = blocks.batch
        device = candidate.device
        first = side.end + torch.arange(self.shared, device=device)
        then = side.end + self.shared + torch.arange(candidate.shape[1], device=device)
        before = torch.ones(self.shared, self.shared, dtype=torch.bool, device=device).tril()
        own_mask = (then.unsqueeze(1) >= then) & exists.unsqueeze(1) | (then.unsqueeze(1) == then)  # (N, o, o)
        features = candidate.shape[1] - self.own_sequence
        turned_first, turned = (self.stack[0].rotation(place) for place in (first, then))
        for block, (k, v), known in zip(self.stack, side.keys, side.exists, strict=True):
            if request is not None:
                normed = block.normed(request)
                own_k, own_v = block.keys(normed, turned_first, self.shared)
                k, v = torch.cat([k, own_k], dim=2), torch.cat([v, own_v], dim=2)
                of_s = known.unsqueeze(1).expand(-1, self.shared, -1)
                mask = torch.cat([of_s, before.expand(len(known), -1, -1)], dim=2).unsqueeze(1)
                known = F.pad(known, (0, self.shared), value=True)
                answer = partial(attend, key=k, value=v, attn_mask=mask)
                request = block.update(request, normed, turned_first, answer, self.shared)
            normed = block.normed(candidate)
            own_k, own_v = block.keys(normed, turned, features, self.shared)
            own_part = (own_k, own_v, own_mask.unsqueeze(1))
            answer = partial(attend_shared, shared=(k, v, known), own=own_part, batch=batch)
            candidate = block.update(candidate, normed, turned, answer, features, self.shared)
        of_request = [side.mean] if request is None else [side.mean, self.norm(request).flatten(1)]
        return self.read_out(blocks, of_request, candidate, exists)

    def full_attention(self, blocks: Blocks, candidate: Tensor, exists: Tensor) -> Tensor:
        """Logits (N, T) of the ablation in which every token sees every other of its candidate."""
        batch = blocks.batch
        x, known = (batch.expand(part) for part in self.sequence(blocks))
        features = candidate.shape[1] - self.own_sequence
        most = self.sequence.most
        for block, kept in zip(self.stack, self.widths_kept, strict=True):
            tokens, mask = torch.cat([x, candidate], dim=1), torch.cat([known, exists], dim=1)
            rotation = block.rotation(torch.arange(tokens.shape[1], device=x.device) - x.shape[1])
            k, v = block.keys(block.normed(tokens), rotation, features)
            if kept < most:
                x, known, most = tail(x, kept), tail(known, kept), kept
            tokens = torch.cat([x, candidate], dim=1)
            rotation = block.rotation(torch.arange(tokens.shape[1], device=x.device) - x.shape[1])
            answer = partial(attend, key=k, value=v, attn_mask=mask[:, None, None])
            tokens = block.update(tokens, block.normed(tokens), rotation, answer, features)
            x, candidate = tokens[:, : x.shape[1]], tokens[:, x.shape[1] :]
        return self.read_out(blocks, [], candidate, exists, [self.mean(x, known)])

    def read_out(
        self,
        blocks: Blocks,
        of_request: list[Tensor],
        candidate: Tensor,
        exists: Tensor,
        more: list[Tensor] | None = None,
    ) -> Tensor:
        """Mean of the S-tokens and all NS-tokens to logits (N, T)."""
        batch, own = blocks.batch, self.own_sequence
        parts = [*(more or []), self.norm(candidate[:, own:]).flatten(1)]
        if own:
            parts.append(self.mean(candidate[:, :own], exists[:, :own]))
        request = torch.cat(of_request, dim=1) if of_request else candidate.new_zeros(batch.requests, 0)
        logits: Tensor = self.head(F.silu(self.readout(request, torch.cat(parts, dim=1), batch)))
        return logits
