"""The reader: subsets against a brute-force filter, order, resuming, prefetching."""

import time
from itertools import chain, islice

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.data import Position, Reader, in_order, prefetch, read_rows, row_files
from models.rows import ItemVectors
from tests.sample_folder import SPEC
from uniscale.artifacts import read_json
from uniscale.errors import DataError
from uniscale.samples import LabelSource, Sampling

SUBSETS = ("search", "unexposed", "attributed", "entire")


def brute_force(samples, split, subset):
    """(request_id, item, click, conversion) of every candidate of a subset, by plain Python."""
    first, last = read_json(samples / "manifest.json")["splits"][split]
    found = []
    for file in (samples / "rows").rglob("*.parquet"):
        if not first <= file.parent.parent.name.removeprefix("day=") <= last:
            continue
        for row in pq.ParquetFile(file).read().to_pylist():
            for place, item in enumerate(row["item"]):
                sampling = row["sampling"][place]
                if subset != "entire":
                    if row["domain_index"] != 0 or (subset == "search" and sampling != Sampling.EXPOSED):
                        continue
                    if sampling not in (Sampling.EXPOSED, Sampling.UNEXPOSED):
                        continue
                labels = []
                for task in SPEC.tasks:
                    counted = subset in ("attributed", "entire")
                    counted = counted or row[f"{task}_source"][place] == LabelSource.IN_DOMAIN
                    labels.append(row[task][place] if counted else 0)
                found.append((row["request_id"], item, *labels))
    return sorted(found)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("subset", SUBSETS)
def test_a_subset_is_the_filter_that_table_1_names(samples, split, subset):
    rows = read_rows(row_files(samples, split, subset, SPEC), SPEC, subset, keys=("request_id",))
    request = np.array(rows.keys["request_id"].to_pylist())[rows.request_of]
    found = zip(request, rows.item.tolist(), *rows.labels.astype(int).T.tolist(), strict=True)
    assert sorted(found) == brute_force(samples, split, subset)


def test_each_subset_of_table_1_contains_the_one_before(samples):
    sizes, positives = [], []
    for subset in SUBSETS:
        rows = read_rows(row_files(samples, "train", subset, SPEC), SPEC, subset)
        sizes.append(rows.candidates)
        positives.append(rows.labels[:, 0].sum())
    assert sizes[0] < sizes[1] == sizes[2] < sizes[3]
    assert positives[0] == positives[1] < positives[2] < positives[3]


def ids(batches):
    """What identifies every candidate of some batches."""
    return [tuple(row) for _, batch in batches for row in batch.candidate_ids.tolist()]


def reader(samples, **changes):
    settings = {"split": "train", "subset": "entire", "batch_samples": 64, "seed": 3} | changes
    return Reader(samples, **settings)


@pytest.mark.parametrize("buffer_samples", [1 << 20, 300])
def test_an_epoch_reads_every_candidate_once_in_an_order_of_its_own(samples, buffer_samples):
    data = reader(samples, buffer_samples=buffer_samples)
    first, again, second = (ids(data.batches(Position(epoch, 0, 0))) for epoch in (0, 0, 1))
    everything = read_rows(data.files, SPEC, "entire").candidate_ids
    assert sorted(first) == sorted(second) == sorted(map(tuple, everything.tolist()))
    assert first == again
    assert first != second
    assert first != ids(reader(samples, seed=4).batches(Position(0, 0, 0)))


@pytest.mark.parametrize("buffer_samples", [1 << 20, 300])
def test_reading_resumes_at_any_batch(samples, buffer_samples):
    whole = list(reader(samples, buffer_samples=buffer_samples).batches(Position(1, 0, 0)))
    assert len(whole) > 6
    for stop in (1, 4, len(whole) - 1, len(whole)):
        rest = reader(samples, buffer_samples=buffer_samples).batches(whole[stop - 1][0])
        assert ids(rest) == ids(whole[stop:])


def test_batches_hold_whole_requests_and_about_as_many_candidates_as_asked(samples):
    sizes = [batch.candidates for _, batch in reader(samples).batches(Position(0, 0, 0))]
    longest = 21  # 7 exposed and 14 unexposed at most
    assert all(64 - longest < size < 64 + longest for size in sizes[:-1])
    one_each = reader(samples, batch_samples=1).batches(Position(0, 0, 0))
    assert all(batch.requests == 1 for _, batch in one_each)


def test_rows_in_order_come_back_in_order(samples):
    rows = read_rows(row_files(samples, "test", "search", SPEC), SPEC, "search")
    batches = list(in_order(rows, ItemVectors.load(samples, SPEC), 50))
    assert len(batches) > 2
    assert torch.equal(torch.cat([b.candidate_ids for b in batches]), torch.from_numpy(rows.candidate_ids))


def test_an_empty_split_is_refused(samples):
    with pytest.raises(DataError, match="no split 'holdout'"):
        row_files(samples, "holdout", "entire", SPEC)
    (empty := samples.parent / "empty").mkdir(exist_ok=True)
    (empty / "manifest.json").write_text('{"splits": {"train": ["2030-01-01", "2030-01-02"]}}')
    with pytest.raises(DataError, match="no rows for train"):
        row_files(empty, "train", "entire", SPEC)


def test_prefetching_keeps_order_and_stays_within_its_depth():
    produced = []

    def source():
        for number in range(10):
            produced.append(number)
            yield number

    items = prefetch(source(), depth=2)
    assert next(items) == 0
    time.sleep(0.3)  # the producer runs ahead as far as it may
    assert len(produced) <= 5  # one given, two queued, one waiting, one being made
    assert list(items) == list(range(1, 10))


def test_prefetching_raises_the_producers_error_where_the_items_are_used():
    items = prefetch(chain([1, 2], (1 // zero for zero in [0])))
    assert list(islice(items, 2)) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_closing_a_prefetcher_ends_its_thread():
    items = prefetch(iter(range(1000)), depth=1)
    next(items)
    items.close()
    assert list(items) == []
