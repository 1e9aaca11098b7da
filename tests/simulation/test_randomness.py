"""Keyed randomness: uniform, independent of order and shape, different by stream, seed and key."""

import numpy as np
import pytest

from simulation.randomness import Stream, gumbel, keyed_uniform, log_logistic


def test_a_number_depends_on_its_keys_only():
    requests, items = np.arange(50), np.arange(40)
    grid = keyed_uniform(7, Stream.CLICK, requests[:, None], items)
    assert grid.shape == (50, 40)
    assert grid[31, 17] == keyed_uniform(7, Stream.CLICK, 31, 17)
    assert (grid[::-1] == keyed_uniform(7, Stream.CLICK, requests[::-1, None], items)).all()


@pytest.mark.parametrize("other", [(8, Stream.CLICK, 31, 17), (7, Stream.CART, 31, 17), (7, Stream.CLICK, 17, 31)])
def test_seed_stream_and_order_of_keys_matter(other):
    assert keyed_uniform(*other) != keyed_uniform(7, Stream.CLICK, 31, 17)


def test_numbers_are_uniform_and_uncorrelated():
    grid = keyed_uniform(3, Stream.CLICK, np.arange(400)[:, None], np.arange(400))
    assert grid.min() >= 0 and grid.max() < 1
    counts = np.histogram(grid, bins=20, range=(0, 1))[0]
    chi_square = ((counts - grid.size / 20) ** 2 / (grid.size / 20)).sum()
    assert chi_square < 43.8  # 0.999 quantile at 19 degrees of freedom
    for a, b in ((grid[:, 1:], grid[:, :-1]), (grid[1:], grid[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_gumbel_argmax_draws_in_proportion():
    weights = np.array([0.1, 0.2, 0.7])
    u = keyed_uniform(1, Stream.FEED, np.arange(20_000)[:, None], np.arange(3))
    shares = np.bincount(np.argmax(np.log(weights) + gumbel(u), axis=1)) / 20_000
    assert np.abs(shares - weights).max() < 4 * np.sqrt(0.25 / 20_000)


def test_log_logistic_quantiles():
    # P(delay > t) = 1 / (1 + (t / median)^shape): the median, and t = 4 medians at shape 0.5 leaves a third
    delays = log_logistic(np.array([0.5, 2 / 3]), median=10.0, shape=0.5)
    assert delays == pytest.approx([10.0, 40.0])
