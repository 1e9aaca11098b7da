"""The candidate-specific sequence against a search written out candidate by candidate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.batches import to_batch
from models.candidate_history import CandidateHistory, pick
from models.encoders.din import LocalActivation
from models.frozen_content import GRID, Content
from models.inputs import Inputs
from tests.models.small import some_rows
from tests.sample_folder import SPEC

K = 3
CATEGORY, SEEN_CATEGORY = 1, 1  # columns of item_category_1 and behaviour_category_1


@pytest.fixture(scope="module")
def batch(samples):
    rows, vectors = some_rows(samples)
    return to_batch(rows.take(np.arange(12)), vectors)


def closest(batch, candidate):
    """Places of the K closest behaviours: same category first, then cosine, then the newest; by sorting."""
    request = batch.request_of[candidate]
    own = F.normalize(batch.candidate_content[candidate], dim=0)
    found = []
    for place in torch.nonzero(batch.behaviour_mask[request]).flatten().tolist():
        same = batch.behaviour_ids[request, place, SEEN_CATEGORY] == batch.candidate_ids[candidate, CATEGORY]
        cosine = own @ F.normalize(batch.behaviour_content[request, place], dim=0)
        found.append((bool(same), round(float(cosine) * GRID), place))
    return sorted(place for _, _, place in sorted(found)[-K:])


def test_the_search_prefers_the_category_then_content_then_the_newest(batch):
    search = CandidateHistory(SPEC, K)
    content = Content.of(batch)
    mask, (places, found) = batch.ungrid(search.mask(batch)), search.places(batch, content)
    nearest = batch.ungrid(search.closest(batch, content)[0])
    lengths = set()
    for candidate in range(batch.candidates):
        expected = closest(batch, candidate)
        lengths.add(len(expected))
        assert torch.nonzero(mask[candidate]).flatten().tolist() == expected
        assert places[candidate][found[candidate]].tolist() == expected
        assert found[candidate].tolist() == [number < len(expected) for number in range(K)]
        assert sorted(nearest[candidate].tolist()[: len(expected)]) == expected
    assert {0, K} <= lengths


def test_of_equal_behaviours_the_newest_is_taken_and_without_vectors_the_newest_of_the_category():
    spec = replace(SPEC, content_dim=0, text_dim=0)
    mask = torch.tensor([[True, True, True, True, False]])
    category = torch.tensor([[7, 9, 7, 9, 0]])
    empty = torch.zeros(1, 5, 0)
    batch = blank(
        candidate_ids=torch.tensor([[1, 7, 1]]),
        candidate_content=torch.zeros(1, 0),
        candidate_text=torch.zeros(1, 0),
        behaviour_ids=torch.stack([torch.ones_like(category), category], dim=-1),
        behaviour_content=empty,
        behaviour_text=empty,
        behaviour_mask=mask,
    )
    content = Content.of(batch)
    assert CandidateHistory(spec, 3).places(batch, content)[0].tolist() == [[0, 2, 3]]
    assert CandidateHistory(spec, 1).places(batch, content)[0].tolist() == [[2]]


def blank(**values):
    """A batch of one request with one candidate, as far as the search reads it."""
    from models.batches import Batch

    names = Batch.__dataclass_fields__
    first = torch.tensor([0])
    defaults = {"request_of": first, "slot": first, "candidate_mask": torch.ones(1, 1, dtype=torch.bool)}
    return Batch(**{name: values.get(name, defaults.get(name)) for name in names})


def test_pick_reads_each_candidates_own_history(batch):
    history = torch.randn(*batch.behaviour_mask.shape, 3)
    place = torch.randint(0, history.shape[1], (batch.candidates, 2))
    found = pick(history, place, batch)
    for candidate in range(0, batch.candidates, 9):
        assert torch.equal(found[candidate], history[batch.request_of[candidate]][place[candidate]])


def test_pooling_reads_the_closest_behaviours_alone(batch):
    inputs = Inputs(SPEC, dim=4, table_rows=32, seed=0)
    blocks, search = inputs(batch), CandidateHistory(SPEC, K)
    din, mean = LocalActivation(inputs.widths.candidate["item"], inputs.widths.behaviour), search.mean(blocks)
    among = search.mask(batch)
    weighted = din(blocks.candidate["item"], blocks, among)
    for candidate in range(0, batch.candidates, 9):
        places = closest(batch, candidate)
        request = batch.request_of[candidate]
        own = blocks.behaviours[request][places]
        torch.testing.assert_close(mean[candidate], own.mean(0) if places else torch.zeros(own.shape[1]))
        q = din.query(blocks.candidate["item"][candidate])
        expected = torch.zeros(own.shape[1])
        for behaviour in own:
            e = din.key(behaviour)
            hidden = F.prelu(din.first(torch.cat([q, e, q - e, q * e])), din.activation.weight)
            expected = expected + din.last(hidden) * behaviour / len(own)
        torch.testing.assert_close(weighted[candidate], expected, rtol=1e-4, atol=1e-5)
