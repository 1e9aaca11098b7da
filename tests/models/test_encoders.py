"""Sequence encoders against their formulas, candidate by candidate."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.batches import to_batch
from models.encoders import DIN, Longer, MeanPooling, StackDIN, TransformerEncoder, build_encoder
from models.inputs import Blocks, Widths
from models.layers import MixedLinear
from tests.models.small import small_config, some_rows

WIDTHS = Widths(request={}, candidate={"item": 5}, behaviour=3)
MODEL = small_config().model


@pytest.fixture(scope="module")
def blocks(samples):
    batch = to_batch(*some_rows(samples))
    behaviours = torch.randn(*batch.behaviour_mask.shape, 3) * batch.behaviour_mask.unsqueeze(-1)
    return Blocks(batch, {}, {"item": torch.randn(batch.candidates, 5)}, behaviours)


def test_mean_pooling_is_the_mean_of_the_behaviours_there_are(blocks):
    pooled = MeanPooling(WIDTHS, MODEL)(blocks)
    for request, mask in enumerate(blocks.batch.behaviour_mask):
        own = blocks.behaviours[request][mask]
        torch.testing.assert_close(pooled[request], own.mean(0) if len(own) else torch.zeros(3))


def test_din_is_the_activation_unit_on_every_pair_of_candidate_and_behaviour(blocks):
    encoder, batch = DIN(WIDTHS, MODEL), blocks.batch
    din = encoder.layer
    with torch.no_grad():
        din.activation.weight.fill_(0.3)
    found = encoder(blocks)
    for candidate in range(0, batch.candidates, 7):
        request = batch.request_of[candidate]
        own = blocks.behaviours[request][batch.behaviour_mask[request]]
        q = din.query(blocks.candidate["item"][candidate])
        expected = torch.zeros(3)
        for behaviour in own:
            e = din.key(behaviour)
            hidden = F.prelu(din.first(torch.cat([q, e, q - e, q * e])), din.activation.weight)
            expected = expected + din.last(hidden) * behaviour / len(own)
        torch.testing.assert_close(found[candidate], expected, rtol=1e-4, atol=1e-5)


def test_a_dataset_without_history_has_no_encoder():
    assert build_encoder(Widths({}, {"item": 5}, behaviour=0), MODEL) is None


def test_a_mixed_linear_is_a_linear_of_the_concatenation(blocks):
    batch = blocks.batch
    layer, request, candidate = MixedLinear(4, 5, 6), torch.randn(batch.requests, 4), blocks.candidate["item"]
    expected = layer.linear(torch.cat([batch.expand(request), candidate], dim=1))
    torch.testing.assert_close(layer(request, candidate, batch), expected)


def test_a_stacked_din_asks_again_with_what_it_has_read(blocks):
    stack = StackDIN(WIDTHS, MODEL)
    item = blocks.candidate["item"]
    first = stack.first(item, blocks)
    torch.testing.assert_close(stack(blocks), first + stack.rest[0](torch.cat([item, first], dim=1), blocks))


def by_hand(block, x, y, allowed):
    """A pre-norm Transformer block of queries x (m, d) over y (s, d) in plain loops over heads."""
    normed, other = (block.norms[0](value) for value in (x, y))
    q, (k, v) = block.query(normed), block.key_value(other).chunk(2, dim=-1)
    head, read = q.shape[-1] // block.heads, []
    for start in range(0, q.shape[-1], head):
        at = slice(start, start + head)
        scores = (q[:, at] @ k[:, at].T / head**0.5).masked_fill(~allowed, -torch.inf)
        read.append(torch.softmax(scores, dim=-1) @ v[:, at])
    x = x + block.out(torch.cat(read, dim=-1))
    return x + block.ffn(block.norms[1](x))


def own_history(blocks, candidate):
    request = blocks.batch.request_of[candidate]
    return request, blocks.behaviours[request][blocks.batch.behaviour_mask[request]]


def test_the_transformer_is_self_attention_then_the_candidates_attention_over_history_and_itself(blocks):
    encoder = TransformerEncoder(WIDTHS, MODEL)
    found = encoder(blocks)
    for candidate in range(0, blocks.batch.candidates, 11):
        _, history = own_history(blocks, candidate)
        x = encoder.behaviour(history)
        for block in encoder.blocks:
            x = by_hand(block, x, x, torch.ones(len(x), len(x), dtype=torch.bool))
        target = encoder.item(blocks.candidate["item"][candidate : candidate + 1])
        both = torch.cat([x, target])
        expected = by_hand(encoder.target, target, both, torch.ones(1, len(both), dtype=torch.bool))[0]
        torch.testing.assert_close(found[candidate], expected, rtol=1e-4, atol=1e-5)


def test_longer_is_cross_causal_then_self_causal_attention_over_merged_and_global_tokens(blocks):
    widths = replace(WIDTHS, request={"user": 4})
    blocks = replace(blocks, request={"user": torch.randn(blocks.batch.requests, 4)})
    config = MODEL.longer.model_copy(update={"layers": 3, "merge": 2, "recent": 2})
    encoder = Longer(widths, MODEL.model_copy(update={"longer": config}))
    found = encoder(blocks)
    for candidate in range(0, blocks.batch.candidates, 11):
        request, history = own_history(blocks, candidate)
        merged = []
        for group in encoder.behaviour(history).split(2) if len(history) else ():
            inner = by_hand(encoder.inner, group, group, torch.ones(len(group), len(group), dtype=torch.bool))
            merged.append(encoder.merged(F.pad(inner.flatten(), (0, 16 - inner.numel()))))
        known = [encoder.user(blocks.request["user"][request]), encoder.cls]
        target = encoder.item(blocks.candidate["item"][candidate])
        sequence = torch.stack([*merged, *known, target])  # each sees itself and what stands before it
        causal = torch.ones(len(sequence), len(sequence), dtype=torch.bool).tril()
        kept = torch.arange(max(len(merged) - 2, 0), len(sequence))  # the two newest, and the global tokens
        x = by_hand(encoder.cross, sequence[kept], sequence, causal[kept])
        for block in encoder.rest:
            x = by_hand(block, x, x, torch.ones(len(x), len(x), dtype=torch.bool).tril())
        torch.testing.assert_close(found[candidate], x[-1], rtol=1e-4, atol=1e-5)
