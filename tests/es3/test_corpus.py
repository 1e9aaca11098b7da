"""The query corpus: a search as of a moment knows what was typed before it, and nothing typed later changes it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.es3 import corpus, retrieve
from features.text import TextEncoder


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write(folder, vectors, times):
    for number, start in enumerate(range(0, len(vectors) + 1, corpus.BLOCK)):
        corpus.write_block(folder, number, vectors[start : start + corpus.BLOCK], times[start : start + corpus.BLOCK])
    return folder


def test_any_number_of_nearer_queries_typed_later_leaves_the_nearest_older_one(tmp_path):
    title = np.array([[1.0, 0.0]], np.float32)
    vectors = np.array([[0.6, 0.8], *([[1.0, 0.0]] * 1000)], np.float32)
    times = np.array([10, *range(100, 1100)])
    folder = write(tmp_path, vectors, times)
    for asked, row in ((10, -1), (11, 0), (100, 0), (101, 1), (5000, 1)):  # strictly before; the first of equals
        assert corpus.nearest(folder, title, np.array([asked]))[1].tolist() == [row]


def test_a_query_unlike_the_title_is_no_neighbour(tmp_path):
    folder = write(tmp_path, np.array([[0, 1], [-1, 0], [0, 0]], np.float32), np.arange(3))
    cosine, row = corpus.nearest(folder, np.array([[1, 0]], np.float32), np.array([9]))
    assert (cosine.tolist(), row.tolist()) == ([0], [-1])


def test_an_empty_corpus_finds_nothing(tmp_path):
    folder = write(tmp_path, np.zeros((0, 8), np.float32), np.zeros(0, np.int64))
    assert corpus.nearest(folder, unit(2), np.array([1, 2]))[1].tolist() == [-1, -1]


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 128, 150, 200])
def test_what_is_typed_later_changes_no_answer(tmp_path, monkeypatch, cut):
    """300 queries in blocks of 64 against the corpus that ends at `cut`: the same to the bit up to that moment."""
    monkeypatch.setattr(corpus, "BLOCK", 64)
    vectors, times = unit(300), np.arange(300) // 2  # two queries a moment
    whole, past = write(tmp_path / "whole", vectors, times), write(tmp_path / "past", vectors[:cut], times[:cut])
    titles = unit(200, seed=1)
    asked = np.random.default_rng(2).integers(0, times[cut - 1] + 1, 200)
    for one, other in zip(corpus.nearest(whole, titles, asked), corpus.nearest(past, titles, asked), strict=True):
        assert one.tobytes() == other.tobytes()


def test_within_the_first_block_the_search_is_exact(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "BLOCK", 64)
    vectors, titles, asked = unit(100), unit(50, seed=1), np.arange(50)
    cosine = vectors @ titles.T
    cosine[np.arange(100)[:, None] >= asked] = -1
    expected = np.where(cosine.max(0) > 0, cosine.argmax(0), -1)
    assert corpus.nearest(write(tmp_path, vectors, np.arange(100)), titles, asked)[1].tolist() == expected.tolist()


def test_full_blocks_are_searched_by_lists_and_still_find_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "BLOCK", 500)
    vectors = unit(2000)
    folder = write(tmp_path, vectors, np.arange(2000))
    some = np.arange(0, 2000, 40)
    assert corpus.nearest(folder, vectors[some], np.full(50, 2000))[1].tolist() == some.tolist()


@pytest.mark.parametrize("block", [8, 1000])
def test_of_queries_equal_but_for_rounding_the_first_typed_is_found(tmp_path, monkeypatch, block):
    """In full blocks, in the one that the moment cuts, and across both: the words of a query in 40 orders."""
    monkeypatch.setattr(corpus, "BLOCK", block)
    monkeypatch.setattr(corpus, "PROBES", 1000)
    title = unit(1)
    near = np.tile(title, (40, 1)) * (1 + np.random.default_rng(0).uniform(-2e-7, 2e-7, (40, 1)))
    vectors = np.concatenate([unit(3, seed=2), near.astype(np.float32)])
    assert len(np.unique(vectors[3:] @ title[0])) > 1
    folder = write(tmp_path, vectors, np.arange(43))
    asked = np.arange(4, 44)
    assert corpus.nearest(folder, np.tile(title, (40, 1)), asked)[1].tolist() == [3] * 40


def test_queries_are_encoded_a_block_at_a_time_and_keep_their_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "BLOCK", 4)
    queries = [f"query {chr(97 + k)}{chr(97 + k)}" for k in range(10)]
    encoder = TextEncoder.fit(queries, dim=4, seed=0)
    encoder.save(tmp_path / "text_encoder")
    sizes, encode = [], TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: (sizes.append(len(texts)), encode(self, texts))[1])
    (tmp_path / "keys").mkdir()
    for number, rows in enumerate((slice(0, 3), slice(3, 10))):  # files cut elsewhere than blocks
        table = pa.table({"query": queries[rows], "first_asked": np.arange(10)[rows]})
        pq.write_table(table, tmp_path / "keys" / f"{number}.parquet")
    retrieve.write_corpus(tmp_path / "keys", tmp_path, tmp_path / "corpus")
    assert sizes == [4, 4, 2]
    rows = pq.read_table(tmp_path / "corpus" / "rows").sort_by("query_row")
    assert rows["query"].to_pylist() == queries and rows["query_row"].to_pylist() == list(range(10))
    found = corpus.nearest(tmp_path / "corpus" / "ann", encode(encoder, queries[:4]), np.full(4, 4))[1]
    assert found.tolist() == [0, 1, 2, 3]
