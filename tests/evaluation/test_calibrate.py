"""Platt scaling finds the optimum, never reorders, and survives separable, inverted and one-class rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models import metrics
from models.calibrate import LEAST_SLOPE, Calibration, fit_platt, sigmoid
from uniscale.errors import DataError


def rows(a, b, n=4000, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=n) * 2 - 1
    return (rng.random(n) < sigmoid(a * logits + b)).astype(int), logits


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.3, -3.0), (2.5, 1.0)])
def test_the_fit_is_the_maximum_likelihood_of_the_smoothed_targets(a, b):
    labels, logits = rows(a, b)
    found = fit_platt(labels, logits)
    positives, negatives = labels.sum(), (1 - labels).sum()
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    soft = np.where(labels == 1, high, low)
    both = np.concatenate([logits, logits])[:, None]  # a soft target is a positive and a negative with weights
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(
        both, np.repeat([1, 0], len(labels)), sample_weight=np.concatenate([soft, 1 - soft])
    )
    assert found.a == pytest.approx(reference.coef_[0, 0], abs=1e-4)
    assert found.b == pytest.approx(reference.intercept_[0], abs=1e-4)
    assert (found.rows, found.positives) == (4000, positives)


def test_a_shift_of_the_base_rate_is_undone_and_the_ranking_kept():
    labels, logits = rows(1.0, -2.0, n=20000)
    before, calibrated = sigmoid(logits), fit_platt(labels, logits)(logits)
    assert metrics.calibration_ratio(labels, before) > 1.5
    assert metrics.calibration_ratio(labels, calibrated) == pytest.approx(1.0, abs=1e-3)
    assert metrics.expected_calibration_error(labels, calibrated) < 0.02
    assert metrics.auc(labels, calibrated) == metrics.auc(labels, logits)


def test_an_inverted_model_keeps_its_order_at_the_least_slope():
    labels, logits = rows(-1.5, 0.0)
    found = fit_platt(labels, logits)
    assert found.a == LEAST_SLOPE
    assert metrics.auc(labels, found(logits)) == metrics.auc(labels, logits)
    assert metrics.calibration_ratio(labels, found(logits)) == pytest.approx(1.0, abs=1e-2)


def test_separable_rows_stay_finite():
    logits = np.concatenate([np.linspace(-3, -1, 50), np.linspace(1, 3, 50)])
    found = fit_platt((logits > 0).astype(int), logits)
    assert 0 < found.a < 50
    assert np.isfinite(found.b)


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_too_rare_for_a_slope_moves_the_base_rate_only(label):
    found = fit_platt(np.full(200, label), np.linspace(-2, 2, 200))
    assert found.a == 1.0
    assert abs(found(np.linspace(-2, 2, 200)).mean() - label) < 0.01


def test_a_constant_model_becomes_the_base_rate():
    labels = np.repeat([1, 0], [30, 70])
    assert fit_platt(labels, np.full(100, 4.0))(4.0) == pytest.approx(0.3, abs=0.01)


def test_rows_that_cannot_be_fitted_are_refused():
    with pytest.raises(DataError, match="no validation rows"):
        fit_platt([], [])
    with pytest.raises(DataError, match="infinite"):
        fit_platt([0, 1], [0.0, np.inf])
    assert Calibration(2.0, -1.0)(np.array([0.5])) == pytest.approx([0.5])
