"""Resampling by weights equals repeating rows; intervals cover what they should."""

import numpy as np
import pytest

from models import bootstrap, metrics
from models.cells import group_codes
from uniscale.errors import DataError


def rows(seed, users=12, n=300):
    rng = np.random.default_rng(seed)
    user = np.append(np.arange(users), rng.integers(0, users, n - users))
    query = rng.integers(0, 3, n)
    labels = (rng.random(n) < 0.3).astype(int)
    first = np.round(rng.normal(size=n) + labels, 1)
    return user, query, labels, [first, np.round(first + rng.normal(size=n), 1)]


def repeated(user, weights):
    """Indices of the rows of a resample, and a copy number for each, the slow way."""
    index = [(row, copy) for row in range(len(user)) for copy in range(int(weights[user[row]]))]
    return np.array(index).T


@pytest.mark.parametrize("seed", range(3))
def test_weights_give_the_metrics_of_repeated_rows(seed):
    user, query, labels, scores = rows(seed)
    day = query % 2
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=4).astype(float)
    groups = group_codes(user, query)
    unit_of_group = np.zeros(groups.max() + 1, int)
    unit_of_group[groups] = user
    found = [metrics.grouped_auc(labels, s, groups) for s in scores]
    hits = [metrics.hit_rate(labels, s, groups, k=3) for s in scores]
    measured = {
        "auc": bootstrap.WeightedAUC(labels, scores, user)(weights),
        "gauc": bootstrap.grouped(found, unit_of_group, 12)(weights),
        "qauc": bootstrap.grouped(found, unit_of_group, 12, by_impressions=False)(weights),
        "hit_rate": bootstrap.mean_of([h.hit for h in hits], hits[0].counted, unit_of_group, 12)(weights),
        "uauc": bootstrap.user_auc(labels, scores, user, day)(weights),
    }
    for resample in range(4):
        index, copy = repeated(user, weights[resample])
        again = group_codes(user[index], query[index], copy)  # a user drawn twice is two users
        twin = group_codes(user[index], copy)
        for model, s in enumerate(scores):
            y, z = labels[index], s[index]
            assert measured["auc"][resample, model] == pytest.approx(metrics.auc(y, z))
            assert measured["gauc"][resample, model] == pytest.approx(metrics.gauc(y, z, again))
            assert measured["qauc"][resample, model] == pytest.approx(metrics.qauc(y, z, again))
            assert measured["hit_rate"][resample, model] == pytest.approx(metrics.hit_rate(y, z, again, k=3).value)
            assert measured["uauc"][resample, model] == pytest.approx(metrics.uauc(y, z, twin, day[index]))


def test_row_zero_is_the_estimate_and_the_seed_decides_the_rest():
    user, _, labels, scores = rows(7)
    measures = {"auc": bootstrap.WeightedAUC(labels, scores, user)}
    values = bootstrap.resample(measures, 12, 150, seed=3)["auc"]
    assert values.shape == (151, 2)
    assert values[0] == pytest.approx([metrics.auc(labels, s) for s in scores])
    np.testing.assert_array_equal(values, bootstrap.resample(measures, 12, 150, seed=3)["auc"])
    assert not np.array_equal(values, bootstrap.resample(measures, 12, 150, seed=4)["auc"])


def test_equal_models_differ_by_exactly_zero():
    user, _, labels, scores = rows(1)
    values = bootstrap.resample({"auc": bootstrap.WeightedAUC(labels, [scores[0]] * 2, user)}, 12, 100, seed=0)["auc"]
    found = bootstrap.interval(values[:, 0] - values[:, 1], 0.95)
    assert (found.value, found.low, found.high, found.standard_error) == (0, 0, 0, 0)
    assert found.p_not_positive == 1


def test_intervals_of_an_auc_difference_cover_the_truth_when_rows_of_a_user_depend():
    """Both scores see a shared user effect and equal noise, so the true difference is 0; nominal coverage is 90 %."""
    covered, experiments = 0, 300
    rng = np.random.default_rng(11)
    for experiment in range(experiments):
        user = np.repeat(np.arange(60), 8)
        labels = (rng.random(480) < 0.15 + 0.3 * rng.random(60)[user]).astype(int)
        tilt = rng.normal(size=(2, 60))[:, user]  # makes a model good on one user and bad on another
        scores = [labels * (0.8 + tilt[m]) + rng.normal(size=480) for m in range(2)]
        drawn = bootstrap.resample({"auc": bootstrap.WeightedAUC(labels, scores, user)}, 60, 120, experiment)["auc"]
        found = bootstrap.interval(drawn[:, 0] - drawn[:, 1], 0.9)
        covered += found.low <= 0 <= found.high
    assert 0.83 <= covered / experiments <= 0.95  # 3 standard errors of 300 experiments are 0.05, 60 units cost 0.02


def test_a_measure_often_undefined_has_no_interval():
    values = np.array([0.5] + [np.nan] * 10 + [0.4] * 90)
    found = bootstrap.interval(values, 0.9)
    assert found.value == 0.5
    assert np.isnan([found.low, found.high, found.standard_error]).all()
    with pytest.raises(DataError, match="at least 2, got 1"):
        bootstrap.resample({}, 1, 100, 0)
