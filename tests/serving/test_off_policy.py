"""The item-position estimator is unbiased under random order, and refuses where there is no support."""

from itertools import permutations

import numpy as np
import pytest

from serving.off_policy import item_position_estimate

EXAMINED = (1.0, 0.6, 0.3)  # at positions 1, 2, 3
APPEAL = (0.9, 0.5, 0.1, 0.0)  # of four items; a click's probability is the product


def all_orders(policy, k):
    """Every order of the items once, with expected clicks in place of drawn ones."""
    orders = list(permutations(range(len(APPEAL))))
    position = np.array([order.index(item) + 1 for order in orders for item in range(len(APPEAL))])
    rank = np.array([policy.index(item) + 1 for _ in orders for item in range(len(APPEAL))])
    examined = np.array([*EXAMINED, 0.2])
    click = examined[position - 1] * np.tile(APPEAL, len(orders))
    offsets = np.arange(len(orders) + 1) * len(APPEAL)
    return item_position_estimate(offsets, position, rank, click, k)


@pytest.mark.parametrize("policy", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_over_all_orders_the_mean_is_the_policys_own_value(policy, k):
    value = sum(EXAMINED[place] * APPEAL[policy[place]] for place in range(k))
    estimate = all_orders(policy, k)
    assert estimate.ips == pytest.approx(value) and estimate.snips == pytest.approx(value)
    assert estimate.low <= estimate.snips <= estimate.high
    assert estimate.logged == pytest.approx(sum(EXAMINED[:k]) * np.mean(APPEAL))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    policy, k, n, covered, runs = (0, 1, 2, 3), 2, 400, 0, 300
    value = sum(EXAMINED[place] * APPEAL[policy[place]] for place in range(k))
    examined = np.array([*EXAMINED, 0.2])
    for _ in range(runs):
        position = np.argsort(rng.random((n, 4)), axis=1).ravel() + 1
        click = rng.random(4 * n) < examined[position - 1] * np.tile(APPEAL, n)
        estimate = item_position_estimate(np.arange(n + 1) * 4, position, np.tile([1, 2, 3, 4], n), click, k)
        covered += estimate.low <= value <= estimate.high
    assert 0.91 <= covered / runs <= 0.99


def test_without_support_there_is_no_estimate():
    offsets = np.array([0, 2, 4])
    never = item_position_estimate(offsets, [1, 2, 1, 2], [2, 1, 2, 1], [1, 0, 1, 0], k=2)
    gaps = item_position_estimate(offsets, [1, 3, 2, 3], [1, 2, 1, 2], [1, 0, 1, 0], k=2)
    one = item_position_estimate(np.array([0, 2]), [1, 2], [1, 2], [1, 0], k=2)
    assert never is None and gaps is None and one is None


def test_requests_with_gaps_in_their_positions_are_left_out():
    offsets = np.array([0, 2, 4, 6])
    estimate = item_position_estimate(offsets, [1, 2, 2, 1, 4, 9], [1, 2, 1, 2, 1, 2], [1, 0, 0, 1, 1, 1], k=2)
    assert estimate.requests == 2 and estimate.matches == 2
    assert estimate.ips == pytest.approx((2 * 1 + 0) / 2)  # the first request agrees on both places, clicked once
