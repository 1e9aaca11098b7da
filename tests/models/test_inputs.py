"""Block embeddings: standardised numbers, missing values, and cross features recomputed by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batches import to_batch
from models.frozen_content import Content, simtier
from models.inputs import Inputs, collisions
from models.rows import ItemVectors, Rows
from tests.models.small import small_model, some_rows
from tests.sample_folder import SPEC
from uniscale.errors import DataError
from uniscale.samples import Feature, SampleSpec

TINY = SampleSpec(
    features=(
        Feature("query_hash", "query", "id", "request", "query"),
        Feature("user_mean_price_30d", "user", "count", "request"),
        Feature("item_brand", "item", "id", "candidate", "brand"),
        Feature("item_price", "item", "count", "candidate"),
        Feature("behaviour_brand", "behaviour", "id", "behaviour", "brand"),
    ),
    domains=("search",),
    scenarios=("keyword",),
    tasks=("click",),
    content_dim=2,
    text_dim=2,
    max_behaviours=4,
)
VECTORS = ItemVectors(
    content=np.array([[0, 0], [1, 0], [0, 2], [3, 4]], np.float32),
    text=np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32),
)


def tiny_rows(prices=(9.0, 19.0), usual=19.0, spec=TINY):
    """One request: candidates 1 and 3, history 1, 2, query text (1, 1)."""
    columns = {
        "query_hash": [5],
        "user_mean_price_30d": [usual],
        "item_brand": [7, 8],
        "item_price": prices,
        "behaviour_brand": [8, 8],
        "domain_index": [0],
        "scenarios": [[1.0]],
        "ts": [7200],
        "query_text": [[1.0, 1.0]],
        "item": [1, 3],
        "behaviour_index": [1, 2],
        "behaviour_ts": [0, 3600],
    }
    columns = {name: np.array(values) for name, values in columns.items()}
    return Rows.of(spec, columns, np.array([0, 2]), np.array([0, 2]))


def test_cross_features_by_hand():
    inputs = Inputs(TINY, dim=2, table_rows=16, seed=0)
    found = inputs(to_batch(tiny_rows(), VECTORS)).candidate["cross"]
    half, log = 0.5**0.5, np.log
    expected = [
        # text cosine, mean and highest content cosine, brand matches, price ratio
        [half, (1 + 0) / 2, 1.0, 0.0, log(10) - log(20)],
        [1.0, (0.6 + 0.8) / 2, 0.8, log(1 + 2), 0.0],
    ]
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-6, atol=1e-6)


def test_cross_features_of_what_is_missing_are_zero():
    inputs = Inputs(TINY, dim=2, table_rows=16, seed=0)
    rows = replace(tiny_rows(prices=(np.nan, 3.0), usual=np.nan), behaviour_offsets=np.array([0, 0]))
    rows = replace(rows, query_text=np.zeros((1, 2), np.float32), candidate_ids=np.zeros((2, 1), np.int64))
    assert not inputs(to_batch(rows, VECTORS)).candidate["cross"].any()


def test_a_dataset_without_content_compares_histories_by_text():
    spec = replace(TINY, content_dim=0)
    inputs = Inputs(spec, dim=2, table_rows=16, seed=0)
    vectors = replace(VECTORS, content=np.zeros((4, 0), np.float32))
    cross = inputs(to_batch(tiny_rows(spec=spec), vectors)).candidate["cross"]
    np.testing.assert_allclose(cross[0, 1:3].detach(), [0.5, 1.0], atol=1e-6)


def test_numbers_are_standardised_on_the_log_scale_and_a_missing_one_is_the_mean(samples):
    rows, _ = some_rows(samples)
    inputs = Inputs(SPEC, dim=4, table_rows=32, seed=0)
    inputs.fit(rows)
    columns = inputs.columns["request"]
    clicks = np.log1p(rows.request_numbers[:, 1].astype(np.float64))
    assert np.isnan(clicks).any()
    values = columns.standardised(torch.from_numpy(rows.request_numbers))[:, 1]
    expected = (clicks - np.nanmean(clicks)) / np.nanstd(clicks)
    np.testing.assert_allclose(values, np.nan_to_num(expected), atol=1e-4)
    assert float(columns.standardised(torch.full((1, 2), torch.nan)).abs().sum()) == 0.0


def test_a_constant_or_wholly_missing_number_stays_finite():
    inputs = Inputs(TINY, dim=2, table_rows=16, seed=0)
    inputs.fit(tiny_rows(prices=(4.0, 4.0), usual=np.nan))
    blocks = inputs(to_batch(tiny_rows(prices=(4.0, 5.0), usual=2.0), VECTORS))
    assert blocks.candidate["item"].isfinite().all()
    assert blocks.request["user"].isfinite().all()


def test_an_infinite_number_is_refused_by_its_name_before_it_spoils_a_column():
    inputs = Inputs(TINY, dim=2, table_rows=16, seed=0)
    with pytest.raises(DataError, match="item_price holds infinite numbers"):
        inputs.fit(tiny_rows(prices=(4.0, np.inf), usual=2.0))


@pytest.mark.parametrize("name", ["dlrm_mlp", "est"])
def test_simtier_joins_the_cross_features_of_every_model_but_est(name, samples):
    rows, vectors = some_rows(samples)
    batch = to_batch(rows, vectors)
    plain, more = (small_model(name, f"model.simtier_tiers={tiers}").inputs for tiers in (0, 5))
    tiers = 0 if name == "est" else 5
    assert more.widths.candidate["cross"] == plain.widths.candidate["cross"] + tiers
    cross = more(batch).candidate["cross"]
    assert torch.equal(cross[:, cross.shape[1] - tiers :], simtier(Content.of(batch), batch, 5)[:, :tiers])
    spec = replace(SPEC, content_dim=0, text_dim=0)  # nothing to compare: no histogram
    assert "simtier" not in Inputs(spec, 4, 16, 0, simtier_tiers=5).widths.features["cross"]


def test_blocks_have_the_promised_widths_and_request_level_ones_a_row_a_request(samples):
    rows, vectors = some_rows(samples)
    inputs = Inputs(SPEC, dim=4, table_rows=32, seed=0)
    batch = to_batch(rows, vectors)
    blocks = inputs(batch)
    assert {name: tuple(block.shape) for name, block in blocks.request.items()} == {
        name: (batch.requests, width) for name, width in inputs.widths.request.items()
    }
    assert {name: tuple(block.shape) for name, block in blocks.candidate.items()} == {
        name: (batch.candidates, width) for name, width in inputs.widths.candidate.items()
    }
    assert blocks.behaviours.shape == (*batch.behaviour_mask.shape, inputs.widths.behaviour)
    assert not blocks.behaviours[~batch.behaviour_mask].any()


def test_the_features_of_a_block_lie_side_by_side_in_the_order_of_their_names():
    inputs = Inputs(TINY, dim=2, table_rows=16, seed=0)
    blocks, features = inputs(to_batch(tiny_rows(), VECTORS)), inputs.widths.features
    assert features == {
        "query": {"query_hash": 2, "query_text": 2},
        "user": {"user_mean_price_30d": 1},
        "context": {"scenarios": 1},
        "item": {"item_brand": 2, "item_price": 1, "item_content": 2, "item_text": 2},
        "cross": {
            "text_cosine": 1,
            "mean_content_cosine": 1,
            "highest_content_cosine": 1,
            "item_brand_in_behaviour_brand": 1,
            "price_ratio": 1,
        },
        "behaviour": {"behaviour_brand": 2, "behaviour_content": 2, "behaviour_recency": 1},
    }
    for block, x in [*blocks.request.items(), *blocks.candidate.items(), ("behaviour", blocks.behaviours)]:
        assert x.shape[-1] == sum(features[block].values())
    brand, price, content, _ = blocks.candidate["item"].split(list(features["item"].values()), dim=-1)
    rows = torch.tensor([7, 8]) % 16 + inputs.tables.offsets["brand"]
    assert torch.equal(brand, inputs.tables.weight[rows])
    np.testing.assert_allclose(price.detach()[:, 0], np.log1p([9.0, 19.0]), rtol=1e-6)
    np.testing.assert_allclose(content.detach(), [[1.0, 0.0], [0.6, 0.8]], rtol=1e-6)


def test_extra_embeddings_come_from_tables_of_their_own_and_leave_the_blocks_as_they_are():
    plain = Inputs(TINY, dim=2, table_rows=16, seed=0)
    inputs = Inputs(TINY, dim=2, table_rows=16, seed=0, extra={"scenario": ["query_hash", "item_brand", "absent"]})
    batch = to_batch(tiny_rows(), VECTORS)
    blocks, expected = inputs(batch), plain(batch)
    assert plain.widths.extra == expected.extra == {}
    assert inputs.widths.extra == {"scenario": (2, 2)}
    of_request, of_candidate = blocks.extra["scenario"]
    weight, offsets = inputs.tables.weight, inputs.tables.offsets
    assert torch.equal(of_request, weight[[offsets["scenario:query"] + 5]])
    assert torch.equal(of_candidate, weight[[offsets["scenario:brand"] + 7, offsets["scenario:brand"] + 8]])
    for mine, theirs in ((blocks.request, expected.request), (blocks.candidate, expected.candidate)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[block], theirs[block]) for block in mine)
    assert torch.equal(blocks.behaviours, expected.behaviours)


def test_a_shared_table_gives_candidate_and_behaviour_the_same_embedding():
    inputs = Inputs(TINY, dim=2, table_rows=16, seed=0)
    blocks = inputs(to_batch(tiny_rows(), VECTORS))
    assert torch.equal(blocks.candidate["item"][1, :2], blocks.behaviours[0, 0, :2])  # brand 8
    assert not torch.equal(blocks.candidate["item"][0, :2], blocks.behaviours[0, 0, :2])


@pytest.mark.parametrize(("rows", "share"), [(3, 0.5), (1024, 0.0)])
def test_collisions_count_ids_that_share_a_row(rows, share):
    # brands 7 and 8; behaviours repeat 8; modulo 3 they are 1 and 2, and with brand 10 and 11: 1 and 2 again
    data = tiny_rows()
    data = replace(data, candidate_ids=np.array([[7], [10]]), behaviour_ids=np.array([[8], [11]]))
    assert collisions(data, rows)["brand"] == share
