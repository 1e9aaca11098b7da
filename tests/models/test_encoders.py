"""Sequence encoders against their formulas, candidate by candidate."""

import pytest
import torch
import torch.nn.functional as F

from models.batches import to_batch
from models.encoders import DIN, MeanPooling, build_encoder
from models.inputs import Blocks, Widths
from models.layers import MixedLinear
from tests.models.small import some_rows
from uniscale.errors import ModelError

WIDTHS = Widths(request={}, candidate={"item": 5}, behaviour=3)


@pytest.fixture(scope="module")
def blocks(samples):
    batch = to_batch(*some_rows(samples))
    behaviours = torch.randn(*batch.behaviour_mask.shape, 3) * batch.behaviour_mask.unsqueeze(-1)
    return Blocks(batch, {}, {"item": torch.randn(batch.candidates, 5)}, behaviours)


def test_mean_pooling_is_the_mean_of_the_behaviours_there_are(blocks):
    pooled = MeanPooling(WIDTHS)(blocks)
    for request, mask in enumerate(blocks.batch.behaviour_mask):
        own = blocks.behaviours[request][mask]
        torch.testing.assert_close(pooled[request], own.mean(0) if len(own) else torch.zeros(3))


def test_din_is_the_activation_unit_on_every_pair_of_candidate_and_behaviour(blocks):
    din, batch = DIN(WIDTHS), blocks.batch
    with torch.no_grad():
        din.activation.weight.fill_(0.3)
    found = din(blocks)
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


def test_a_dataset_without_history_has_no_encoder_and_an_unknown_one_is_refused():
    assert build_encoder("din", Widths({}, {"item": 5}, behaviour=0)) is None
    with pytest.raises(ModelError, match=r"model\.encoder = 'dinn' is unknown; did you mean din"):
        build_encoder("dinn", WIDTHS)


def test_a_mixed_linear_is_a_linear_of_the_concatenation(blocks):
    batch = blocks.batch
    layer, request, candidate = MixedLinear(4, 5, 6), torch.randn(batch.requests, 4), blocks.candidate["item"]
    expected = layer.linear(torch.cat([batch.expand(request), candidate], dim=1))
    torch.testing.assert_close(layer(request, candidate, batch), expected)
