"""What EST takes from frozen content, recomputed by hand: SimTier, content sparse attention, semantic ids."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.batches import to_batch
from models.frozen_content import GRID, Content, Neighbours, SemanticIds, simtier, strongest
from tests.models.small import some_rows
from tests.sample_folder import SPEC


@pytest.fixture(scope="module")
def batch(samples):
    return to_batch(*some_rows(samples))


def sequences(lengths, width=4, content=3):
    """Tokens, unit content and mask of padded sequences."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    m = F.normalize(torch.randn(*mask.shape, content), dim=-1) * mask.unsqueeze(-1)
    return torch.randn(*mask.shape, width), m, mask


def test_the_strongest_are_the_highest_valid_ones_and_ties_go_to_the_later_place():
    scores = torch.tensor([[0.5, 0.9, 0.5 + 0.1 / GRID, -0.3, 0.95]])
    place, found = strongest(scores, torch.tensor([[True, True, True, True, False]]), 3)
    assert place.tolist() == [[1, 2, 0]]
    place, found = strongest(scores, torch.tensor([[False, True, False, False, False]]), 3)
    assert (place.tolist(), found.tolist()) == ([[1, 0, 0]], [[True, False, False]])


def test_csa_with_k_equal_to_the_length_is_g_times_b():  # eq. 1
    x, m, mask = sequences([5, 5, 5])
    found = Neighbours.of(m, mask, 5).attend(x)
    torch.testing.assert_close(found, m @ m.transpose(1, 2) @ x, rtol=1e-6, atol=1e-6)


def test_csa_is_algorithm_1_row_by_row():
    x, m, mask = sequences([6, 2, 0])
    found = Neighbours.of(m, mask, 3).attend(x)
    for row, length in enumerate([6, 2, 0]):
        g = m[row, :length] @ m[row, :length].T
        for i in range(length):
            nearest = g[i].argsort(descending=True)[:3]
            torch.testing.assert_close(found[row, i], sum(g[i, j] * x[row, j] for j in nearest))
    assert not found[2].any()


def test_padding_never_enters_csa():
    x, m, mask = sequences([4, 2])
    found = Neighbours.of(m, mask, 3).attend(x)
    noise, wild = torch.randn(2, 6, 4) * 1e6, F.normalize(torch.ones(2, 6, 3), dim=-1)
    longer = Neighbours.of(torch.cat([m, wild], 1), F.pad(mask, (0, 6)), 3).attend(torch.cat([x, noise], 1))
    torch.testing.assert_close(longer[:, :4][mask], found[mask])


def test_csa_learns_nothing_and_lets_no_gradient_through_the_content(batch):
    with_gradient = replace(
        batch,
        behaviour_content=batch.behaviour_content.clone().requires_grad_(),
        candidate_content=batch.candidate_content.clone().requires_grad_(),
    )
    content = Content.of(with_gradient)
    x = torch.randn(*batch.behaviour_mask.shape, 4, requires_grad=True)
    neighbours = Neighbours.of(content.seen, batch.behaviour_mask, 3)
    (neighbours.attend(x).sum() + simtier(content, batch, 4).sum()).backward()
    assert x.grad.any()
    assert with_gradient.behaviour_content.grad is None
    assert with_gradient.candidate_content.grad is None


def test_similarities_are_exact_under_autocast(batch):
    exact = Content.of(batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Content.of(batch).cosines, exact.cosines)


def test_simtier_is_a_histogram_of_cosines(batch):
    tiers, content = 5, Content.of(batch)
    found = simtier(content, batch, tiers)
    assert found.shape == (batch.candidates, tiers)
    for candidate in range(0, batch.candidates, 7):
        request = batch.request_of[candidate]
        cosines = content.seen[request][batch.behaviour_mask[request]] @ content.own[candidate]
        expected = np.histogram(cosines.clamp(-1, 1).numpy(), bins=tiers, range=(-1, 1))[0]
        np.testing.assert_allclose(found[candidate], np.log1p(expected), rtol=1e-6)


def test_items_without_content_count_nowhere(batch):
    nothing = replace(batch, behaviour_content=torch.zeros_like(batch.behaviour_content))
    assert not simtier(Content.of(nothing), nothing, 4).any()
    ids = SemanticIds(SPEC.content_dim, levels=2, codes=4, width=3)
    assert not ids(torch.zeros(5, SPEC.content_dim)).any()


def test_a_semantic_id_is_the_nearest_centre_of_each_level(batch):
    ids = SemanticIds(SPEC.content_dim, levels=2, codes=4, width=3)
    content = Content.of(batch).own
    found = ids(content)
    for row in range(0, len(content), 11):
        nearest = [int((ids.centres[4 * level : 4 * level + 4] @ content[row]).argmax()) for level in range(2)]
        expected = torch.cat([ids.embedding.weight[4 * level + code] for level, code in enumerate(nearest)])
        assert torch.equal(found[row], expected)


def test_a_dataset_without_content_compares_by_text(batch):
    nothing = torch.zeros(*batch.behaviour_mask.shape, 0)
    by_text = replace(batch, candidate_content=torch.zeros(batch.candidates, 0), behaviour_content=nothing)
    content = Content.of(by_text)
    torch.testing.assert_close(content.own, F.normalize(batch.candidate_text, dim=-1))
    assert content.seen.shape[-1] == SPEC.text_dim
