"""Batches against a reading of the same rows one by one."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.batches import to_batch
from models.rows import ItemVectors, Rows, rows_from_arrow
from tests.sample_folder import SPEC
from uniscale.errors import DataError


@pytest.fixture(scope="module")
def table(samples):
    files = sorted((samples / "rows").rglob("*.parquet"))[:4]
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


@pytest.fixture(scope="module")
def vectors(samples):
    return ItemVectors.load(samples, SPEC)


def test_every_value_of_a_batch_is_the_rows_own(table, vectors):
    batch, rows = to_batch(rows_from_arrow(table, SPEC), vectors), table.to_pylist()
    assert batch.requests == len(rows)
    longest = max(len(row["behaviour_index"]) for row in rows)
    assert batch.behaviour_mask.shape == (len(rows), longest)
    names = {level: [f.name for f in SPEC.select(level, ("id",))] for level in ("request", "candidate", "behaviour")}
    for place, row in enumerate(rows):
        at = slice(int(batch.offsets[place]), int(batch.offsets[place + 1]))
        assert (batch.request_of[at] == place).all()
        assert batch.request_ids[place].tolist() == [row[name] for name in names["request"]]
        clicks = batch.request_numbers[place]
        assert clicks[0] == row["user_clicks_7d"]
        assert clicks[1].isnan() if row["query_clicks_7d"] is None else clicks[1] == row["query_clicks_7d"]
        assert batch.domain[place] == row["domain_index"]
        assert batch.scenarios[place].nonzero().flatten().tolist() == row["scenarios"]
        np.testing.assert_allclose(batch.query_text[place], row["query_text"])
        for column, name in enumerate(names["candidate"]):
            assert batch.candidate_ids[at, column].tolist() == row[name]
        np.testing.assert_allclose(batch.candidate_numbers[at, 0], row["item_price"])
        np.testing.assert_array_equal(batch.candidate_content[at], vectors.content[row["item"]])
        np.testing.assert_array_equal(batch.candidate_text[at], vectors.text[row["item"]])
        assert batch.labels[at].tolist() == [list(pair) for pair in zip(row["click"], row["conversion"], strict=True)]
        length = len(row["behaviour_index"])
        assert batch.behaviour_mask[place].tolist() == [True] * length + [False] * (longest - length)
        for column, name in enumerate(names["behaviour"]):
            assert batch.behaviour_ids[place, :, column].tolist() == row[name] + [0] * (longest - length)
        np.testing.assert_array_equal(batch.behaviour_content[place, :length], vectors.content[row["behaviour_index"]])
        ages = [int(row["ts"].timestamp()) - seen for seen in row["behaviour_ts"]]
        assert batch.behaviour_age[place].tolist() == ages + [0] * (longest - length)
        assert not batch.behaviour_content[place, length:].any()


def test_arrays_handed_over_by_a_service_give_the_same_batch(table, vectors):
    trained = rows_from_arrow(table, SPEC)
    columns = {"domain_index": trained.domain, "scenarios": trained.scenarios, "ts": trained.ts}
    columns |= {"query_text": trained.query_text, "item": trained.item}
    columns |= {"behaviour_index": trained.behaviour_index, "behaviour_ts": trained.behaviour_ts}
    for feature in SPEC.features:
        flat = table[feature.name].combine_chunks()
        flat = flat.flatten() if feature.level != "request" else flat
        columns[feature.name] = flat.to_numpy(zero_copy_only=False)
    served = Rows.of(SPEC, columns, trained.offsets, trained.behaviour_offsets)
    one, other = to_batch(trained, vectors), to_batch(served, vectors)
    for name in set(vars(one)) - {"labels"}:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)
    assert not other.labels.any()


def test_a_history_longer_than_asked_keeps_its_newest_behaviours(table, vectors):
    rows = rows_from_arrow(table, SPEC)
    full, cut = to_batch(rows, vectors), to_batch(rows, vectors, length=3)
    for place, length in enumerate(np.diff(rows.behaviour_offsets)):
        kept = min(int(length), 3)
        expected = full.behaviour_ids[place, length - kept : length]
        assert torch.equal(cut.behaviour_ids[place, :kept], expected)


def test_the_grid_holds_each_request_in_a_row_and_comes_back(table, vectors):
    batch = to_batch(rows_from_arrow(table, SPEC), vectors)
    grid = batch.grid(batch.candidate_text)
    assert torch.equal(batch.ungrid(grid), batch.candidate_text)
    assert not grid[~batch.candidate_mask].any()
    assert torch.equal(grid[1, : int(batch.candidate_mask[1].sum())], batch.candidate_text[batch.request_of == 1])


def test_taking_and_keeping_select_whole_lists_and_single_candidates(table):
    rows = rows_from_arrow(table, SPEC, keys=("request_id",))
    taken = rows.take(np.array([3, 1]))
    assert taken.keys["request_id"].to_pylist() == rows.keys["request_id"].take([3, 1]).to_pylist()
    assert taken.item.tolist() == [*rows.item[slice(*rows.offsets[3:5])], *rows.item[slice(*rows.offsets[1:3])]]
    mask = (rows.item % 2 == 0) & (rows.request_of != 2)
    kept = rows.keep(mask)
    assert kept.item.tolist() == rows.item[mask].tolist()
    assert kept.requests == len(set(rows.request_of[mask]))


def test_requests_without_any_history_still_make_a_batch(table, vectors):
    rows = rows_from_arrow(table, SPEC)
    rows = rows.take(np.flatnonzero(np.diff(rows.behaviour_offsets) == 0))
    batch = to_batch(rows, vectors)
    assert batch.behaviour_mask.shape == (rows.requests, 1)
    assert not batch.behaviour_mask.any()


def changed(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


def test_broken_rows_are_refused_by_name(table, vectors):
    with pytest.raises(DataError, match="item_brand is missing"):
        rows_from_arrow(table.drop_columns("item_brand"), SPEC)
    brands = table["item_brand"].to_pylist()
    with pytest.raises(DataError, match="lists of item_brand differ in length"):
        rows_from_arrow(changed(table, "item_brand", [brands[0][:-1], *brands[1:]]), SPEC)
    with pytest.raises(DataError, match="later than their request"):
        late = [[2**40 for _ in row] for row in table["behaviour_ts"].to_pylist()]
        rows_from_arrow(changed(table, "behaviour_ts", late), SPEC)
    with pytest.raises(DataError, match="query_text holds a vector of width 6, the spec says 9"):
        rows_from_arrow(table, replace(SPEC, text_dim=9))
    rows = rows_from_arrow(table, SPEC)
    no_rows = {f.name: np.zeros(0) for f in SPEC.features} | {"query_text": np.zeros((0, SPEC.text_dim))}
    empty = np.zeros(1, np.int64)
    with pytest.raises(DataError, match="column ts is missing"):
        Rows.of(SPEC, {name: np.zeros((0, 4)) for name in ("domain_index", "scenarios")} | no_rows, empty, empty)
    with pytest.raises(DataError, match=r"no .*items\.parquet"):
        ItemVectors.load("nowhere", rows.spec)


def test_rows_stacked_piece_by_piece_are_the_same(table, monkeypatch):
    whole = rows_from_arrow(table, SPEC)
    monkeypatch.setattr("models.rows.STACKED", 7)
    pieces = rows_from_arrow(table, SPEC)
    assert whole.candidates > 7 and whole.candidates % 7
    for level in ("request", "candidate", "behaviour"):
        for kind in ("ids", "numbers"):
            name = f"{level}_{kind}"
            np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
