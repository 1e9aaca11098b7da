"""The list-wise benchmark: both feeds are the same request, and memory is counted exactly."""

import numpy as np
import pytest
import torch

from benchmarks.listwise import compare, peak_bytes, rows_of, spec_of
from models.rows import Rows


def test_the_feeds_hold_the_same_candidates_and_each_point_its_own_history():
    spec = spec_of(7)
    listed, points = (rows_of(spec, 5, 7, point_wise) for point_wise in (False, True))
    assert (listed.requests, points.requests) == (1, 5)
    assert np.array_equal(listed.item, points.item)
    for request in range(5):
        own = points.take(np.array([request]))
        assert isinstance(own, Rows)
        assert np.array_equal(own.behaviour_ids, listed.behaviour_ids)
        assert np.array_equal(own.behaviour_ts, listed.behaviour_ts)
        assert np.array_equal(own.request_ids, listed.request_ids)


def test_the_peak_is_what_lives_at_once():
    mebibyte = 2**20

    def work():
        first = torch.ones(mebibyte, dtype=torch.uint8)
        del first
        kept = torch.ones(mebibyte, dtype=torch.uint8)
        more = torch.ones(2 * mebibyte, dtype=torch.uint8)
        return kept, more

    assert 3 * mebibyte <= peak_bytes(work) < 3.1 * mebibyte


@pytest.mark.parametrize("train", [False, True])
def test_a_line_has_a_ratio_of_each_cost_and_point_wise_needs_more_memory(train):
    line = compare("onetrans", 6, 12, train, repeats=1, sets=["model.embedding_dim=4"])
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["onetrans", "6", "12"] and len(cells) == 9
    assert float(cells[-1]) > 1.0
