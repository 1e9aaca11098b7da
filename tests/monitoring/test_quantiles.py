import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.simulated_users import requests_of
from monitoring.quantiles import clustered_quantile, compare_quantiles


def test_estimate_is_the_order_statistic():
    found = clustered_quantile(np.arange(1.0, 101.0), np.arange(100), 0.9, 0.05)
    assert found.estimate == 90.0 and found.beyond == 10 and found.users == 100
    # One request a user: Var p̂ = 100/99 · 100 · 0.09 / 100², so the ranks are 100 · (0.9 ± 1.96 · 0.030151).
    assert (found.lower, found.upper) == (85.0, 96.0)


def test_too_small_a_sample_has_no_upper_bound():
    found = clustered_quantile(np.arange(1.0, 21.0), np.arange(20), 0.99, 0.05)
    assert found.lower is None and found.upper is None
    assert compare_quantiles(found, found, 0.05) is None


def test_one_user_has_no_interval():
    assert clustered_quantile(np.arange(1.0, 5000.0), np.zeros(4999), 0.5, 0.05).upper is None


def test_an_a_a_on_a_tail_quantile_keeps_its_level_and_independence_would_not():
    rng, trials, rejected, naive = np.random.default_rng(31), 300, 0, 0
    for _ in range(trials):
        arms = [requests_of(rng) for _ in range(2)]
        control, treatment = (clustered_quantile(values, user, 0.9, 0.05) for values, user in arms)
        rejected += compare_quantiles(control, treatment, 0.05).p < 0.05
        apart = (clustered_quantile(values, np.arange(len(values)), 0.9, 0.05) for values, _ in arms)
        naive += compare_quantiles(*apart, 0.05).p < 0.05
    assert binom.ppf(0.0005, trials, 0.05) <= rejected <= binom.ppf(0.9995, trials, 0.05)
    assert naive > 2 * binom.ppf(0.9995, trials, 0.05)


def test_a_shift_of_every_request_is_recovered_and_covered():
    rng, covered, lifts = np.random.default_rng(32), 0, []
    for _ in range(100):
        control, treatment = (clustered_quantile(*requests_of(rng, shift=s), 0.9, 0.05) for s in (1.0, 1.3))
        found = compare_quantiles(control, treatment, 0.05)
        assert (found.p < 0.05) == (found.lower > 0 or found.upper < 0)
        covered += found.lower <= 0.3 <= found.upper
        lifts.append(found.lift)
    assert covered >= binom.ppf(0.001, 100, 0.95)
    assert np.mean(lifts) == pytest.approx(0.3, abs=0.03)
