import math

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.experiments import peeking
from monitoring.sequential import always_valid


def test_the_interval_excludes_zero_exactly_when_p_is_below_its_level():
    rng = np.random.default_rng(0)
    for _ in range(300):
        theta, variance = rng.normal(0, 0.3), rng.uniform(1e-4, 0.05)
        found = always_valid(theta, variance, 0.05, 0.1)
        assert (found.lower > 0 or found.upper < 0) == (found.p < 0.05)
        assert found.lower < math.expm1(theta) < found.upper


def test_value_by_hand():
    # V = τ² = 0.01: half-width √(0.01 · 0.02 / 0.01 · (2 ln 20 + ln 2)) = √(0.02 · 6.684612) = 0.365639.
    found = always_valid(0.0, 0.01, 0.05, 0.1)
    assert math.log1p(found.upper) == pytest.approx(0.365639, abs=1e-5)
    assert found.p == 1.0  # Λ(0) = √½ < 1


def test_it_is_wider_than_a_fixed_horizon_interval():
    for variance in (1e-4, 1e-3, 1e-2):
        assert math.log1p(always_valid(0.0, variance, 0.05, 0.1).upper) > 1.96 * math.sqrt(variance)


def test_daily_peeking_stays_under_the_level_where_a_fixed_horizon_does_not():
    """400 A/A experiments of 14 daily looks; users return, their clicks are overdispersed, the burn-in is kept."""
    trials = 400
    found = peeking(trials, users=200, days=14, seed=21)
    assert found["always valid"] * trials <= binom.ppf(0.999, trials, 0.05) < found["fixed horizon"] * trials


def test_a_real_lift_is_found_before_the_end():
    rng = np.random.default_rng(22)
    found = 0
    for _ in range(50):
        a, b = (rng.poisson(rng.gamma(2.0, m, 3000)) for m in (1.2, 1.0))
        variance = sum(x.var(ddof=1) / x.mean() ** 2 / len(x) for x in (a, b))
        found += always_valid(math.log(a.mean() / b.mean()), variance, 0.05, 0.1).p < 0.05
    assert found >= 45
