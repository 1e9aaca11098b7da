"""Metrics equal scikit-learn, and hand-computed cases where it has none."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from models import metrics
from models.cells import group_codes
from uniscale.errors import DataError


def random_rows(seed, n=600, groups=25, decimals=1, dtype=np.float64):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.2).astype(int)
    scores = np.round(rng.normal(size=n) + labels, decimals).astype(dtype)
    return labels, scores, rng.integers(0, groups, n)


def by_group(labels, scores, groups):
    for group in np.unique(groups):
        rows = groups == group
        if 0 < labels[rows].sum() < rows.sum():
            yield reference.roc_auc_score(labels[rows], scores[rows]), rows.sum()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_auc_family_equals_scikit_learn_with_ties(seed, dtype, decimals):
    labels, scores, groups = random_rows(seed, decimals=decimals, dtype=dtype)
    assert metrics.auc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-12)
    areas, sizes = np.array(list(by_group(labels, scores, groups))).T
    assert metrics.gauc(labels, scores, groups) == pytest.approx(np.average(areas, weights=sizes), abs=1e-12)
    assert metrics.qauc(labels, scores, groups) == pytest.approx(areas.mean(), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_wins_equal_the_count_of_pairs(rows):
    labels, scores, groups = np.array(rows).T
    found = metrics.grouped_auc(labels, scores.astype(float), groups)
    for group in range(groups.max() + 1):
        positive = scores[(groups == group) & (labels == 1)][:, None]
        negative = scores[(groups == group) & (labels == 0)][None, :]
        assert found.wins[group] == ((positive > negative) + 0.5 * (positive == negative)).sum()
        assert (found.positives[group], found.negatives[group]) == (positive.size, negative.size)


def test_float64_scores_closer_than_float32_resolution_are_told_apart():
    scores = 1.0 + np.array([0.0, 1e-12])
    assert metrics.auc([0, 1], scores) == 1.0
    assert metrics.auc([0, 1], scores.astype(np.float32)) == 0.5
    assert metrics.auc([0, 1], np.array([-0.0, 0.0])) == 0.5
    assert metrics.auc([0, 1, 0], np.array([-np.inf, np.inf, 1e300])) == 1.0


def test_groups_of_one_class_are_left_out_and_their_share_is_known():
    # group 0: a positive only; 1: AUC 1 on 2 rows; 2: AUC 1/2 on 3 rows; 3: no rows; 4: a negative only
    labels, groups = [1, 1, 0, 1, 0, 0, 0], [0, 1, 1, 2, 2, 2, 4]
    scores = [0.5, 0.9, 0.1, 0.5, 0.4, 0.6, 0.3]
    found = metrics.grouped_auc(labels, scores, groups)
    assert found.gauc == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert found.qauc == pytest.approx((1.0 + 0.5) / 2)
    assert found.valid_share == pytest.approx(2 / 4)
    assert np.isnan(metrics.gauc([1, 1], [0.1, 0.2], [0, 1]))


def test_uauc_averages_days_not_impressions():
    # day a: one user with AUC 1 on 2 rows; day b: one user with AUC 0 on 4 rows, one with a single class
    users = ["u", "u", "u", "u", "u", "u", "v"]
    days = ["a", "a", "b", "b", "b", "b", "b"]
    assert metrics.uauc([1, 0, 1, 0, 0, 0, 1], [2, 1, 1, 2, 3, 4, 0], users, days) == pytest.approx(0.5)


def test_hit_rate_counts_requests_with_a_positive_and_more_than_k_candidates():
    requests = np.repeat([0, 1, 2, 3], [6, 6, 6, 3])
    labels = np.zeros(21, int)
    labels[[4, 11, 20]] = 1  # rank 5, rank 6, none in request 2, and a request too short to miss
    scores = -np.concatenate([np.arange(6), np.arange(6), np.arange(6), np.arange(3)]).astype(float)
    found = metrics.hit_rate(labels, scores, requests, k=5)
    assert found.value == pytest.approx(1 / 2)
    assert found.too_short == 1
    assert found.counted.tolist() == [True, True, False, False]


@pytest.mark.parametrize("seed", range(3))
def test_hit_rate_of_ties_is_the_expectation_over_random_orders(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(8) < 0.3).astype(int)
    labels[0] = 1
    scores = rng.integers(0, 3, 8).astype(float)
    orders = scores + rng.random((20000, 8)) * 0.5
    drawn = np.take_along_axis(np.broadcast_to(labels, orders.shape), np.argsort(-orders, axis=1)[:, :3], axis=1)
    assert metrics.hit_rate(labels, scores, np.zeros(8, int), k=3).value == pytest.approx(
        drawn.any(1).mean(), abs=0.015
    )
    constant = metrics.hit_rate([1, 0, 0, 0, 0, 0, 0, 0], np.zeros(8), np.zeros(8, int), k=5)
    assert constant.value == pytest.approx(5 / 8)


@pytest.mark.parametrize("k", [1, 3, None])
def test_ndcg_equals_scikit_learn_with_ties_and_graded_gains(k):
    rng = np.random.default_rng(5)
    groups = rng.permutation(np.repeat(np.arange(12), rng.integers(3, 9, 12)))
    gains, scores = rng.integers(0, 3, len(groups)).astype(float), rng.integers(0, 4, len(groups)).astype(float)
    gains[groups == 0] = 0
    found = metrics.ndcg(gains, scores, groups, k)
    assert np.isnan(found[0])
    for group in range(1, 12):
        rows = groups == group
        assert found[group] == pytest.approx(reference.ndcg_score([gains[rows]], [scores[rows]], k=k), abs=1e-12)


def test_expected_auc_is_the_mean_over_drawn_clicks():
    rng = np.random.default_rng(2)
    truth, scores = rng.random(7), rng.integers(0, 4, 7).astype(float)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    weight = np.array([truth[i] * (1 - truth[j]) for i, j in pairs])
    win = np.array([(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for i, j in pairs])
    assert metrics.expected_auc(truth, scores) == pytest.approx(weight @ win / weight.sum())
    labels = np.array([0, 1, 1, 0, 0, 1, 0])
    assert metrics.expected_auc(labels, scores) == pytest.approx(metrics.auc(labels, scores))
    repeated = metrics.expected_auc(np.repeat(labels, 3), np.repeat(scores, 3))
    assert metrics.expected_auc(labels, scores, np.full(7, 3.0)) == pytest.approx(repeated)


def test_probabilities_are_judged_as_scikit_learn_and_by_hand():
    rng = np.random.default_rng(1)
    labels, probabilities = (rng.random(500) < 0.3).astype(int), rng.random(500)
    assert metrics.log_loss(labels, probabilities) == pytest.approx(reference.log_loss(labels, probabilities))
    assert metrics.calibration_ratio([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]) == pytest.approx(2.0)
    # two bins of two rows: gaps |1 - 0.8| and |0 - 0.1|, each with half of the mass
    assert metrics.expected_calibration_error([0, 0, 1, 1], [0.1, 0.1, 0.8, 0.8], bins=2) == pytest.approx(0.15)
    assert metrics.expected_calibration_error([1, 0, 1, 0], [0.5] * 4, bins=4) == 0.0


def test_ranking_metrics_do_not_change_under_a_monotone_map_or_a_permutation():
    labels, scores, groups = random_rows(9)
    order = np.random.default_rng(0).permutation(len(labels))
    for moved in (np.exp(scores), scores * 3 - 1):
        assert metrics.auc(labels, scores) == pytest.approx(metrics.auc(labels[order], moved[order]))
        assert metrics.gauc(labels, scores, groups) == pytest.approx(metrics.gauc(labels, moved, groups))
        before, after = (
            metrics.ndcg(labels, scores, groups, 5),
            metrics.ndcg(labels[order], moved[order], groups[order], 5),
        )
        np.testing.assert_allclose(before, after)


def test_group_codes_number_tuples_by_first_appearance_with_null_as_a_value():
    assert group_codes(pa.array(["b", "a", None, "b", None])).tolist() == [0, 1, 2, 0, 2]
    assert group_codes(["u", "u", "v", "u"], [1, 2, 1, 1]).tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("labels", "scores", "groups", "message"),
    [
        ([0, 2], [0.1, 0.2], [0, 0], "labels must be 0 or 1, got .*2"),
        ([0, 1], [0.1, float("nan")], [0, 0], "1 of 2 scores are NaN"),
        ([0, 1], [0.1], [0, 0], "must be the same rows"),
        ([0, 1], [0.1, 0.2], [0, -1], "use group_codes"),
        ([0, 1], [0.1, 0.2], [0.5, 1.0], "use group_codes"),
    ],
)
def test_rows_that_cannot_be_judged_are_refused(labels, scores, groups, message):
    with pytest.raises(DataError, match=message):
        metrics.gauc(labels, scores, groups)


def test_no_rows_have_no_metric():
    none = np.zeros(0)
    assert np.isnan(metrics.auc(none, none))
    assert np.isnan(metrics.gauc(none, none, none.astype(int)))
    assert np.isnan(metrics.log_loss(none, none))
    assert np.isnan(metrics.hit_rate(none, none, none.astype(int)).value)
    assert metrics.ndcg(none, none, none.astype(int)).size == 0
