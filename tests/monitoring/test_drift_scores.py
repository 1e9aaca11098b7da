import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from monitoring.drift_scores import Buckets, score


def test_psi_and_js_by_hand():
    # 300 and 100 rows before, 200 and 200 after: PSI with half a row added to each bucket, JS without.
    found = score(np.array([0, 300, 100]), np.array([0, 200, 200]))
    p, q = np.array([300.5, 100.5]) / 401, np.array([200.5, 200.5]) / 401
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert found.js == pytest.approx(jensenshannon([0.75, 0.25], [0.5, 0.5], base=2))
    assert found.psi_noise == pytest.approx(2 / 400) and found.beyond_chance


def test_the_same_counts_score_nothing():
    found = score(np.array([5, 300, 100]), np.array([5, 300, 100]))
    assert found.psi == found.js == 0.0 and not found.beyond_chance
    assert found.reference_missing == found.current_missing == pytest.approx(5 / 405)


def test_a_price_times_one_and_a_half_is_seen_by_quantile_bins():
    price = np.random.default_rng(0).lognormal(3.0, 1.0, 200_000)
    bucket = Buckets.of_numbers(price)
    assert score(bucket.counts(price), bucket.counts(1.5 * price)).psi == pytest.approx(0.154, abs=0.01)
    width = np.histogram_bin_edges(price, 10)
    shares = [np.histogram(np.clip(x, width[0], width[-1]), width)[0] / len(price) for x in (price, 1.5 * price)]
    seen = (shares[0] > 0) & (shares[1] > 0)
    assert ((shares[1] - shares[0])[seen] * np.log(shares[1][seen] / shares[0][seen])).sum() < 0.05


def test_noise_of_psi_and_js_is_what_two_samples_of_one_distribution_show():
    rng, psi, js, chance = np.random.default_rng(1), [], [], 0
    for _ in range(400):
        reference, current = (rng.multinomial(n, np.full(10, 0.1)) for n in (4000, 1500))
        found = score(np.r_[0, reference], np.r_[0, current])
        psi.append(found.psi)
        js.append(found.js**2)
        chance += found.beyond_chance
    assert np.mean(psi) == pytest.approx(found.psi_noise, rel=0.1)
    assert np.mean(js) == pytest.approx(found.js_noise**2, rel=0.1)
    assert chance <= 4  # 0.4 are expected


def test_numbers_fall_into_quantiles_and_the_outside_has_its_own_bins():
    bucket = Buckets.of_numbers(np.arange(1.0, 101.0))
    assert bucket.counts(np.arange(1.0, 101.0)).tolist() == [0, 0, 1, 9, *[10] * 9, 0]
    assert bucket.counts(np.array([np.nan, -5.0, 1000.0])).tolist() == [1, 1, *[0] * 11, 1]


def test_a_constant_column_notices_any_other_value():
    bucket = Buckets.of_numbers(np.zeros(50))
    counts = [bucket.counts(x).tolist() for x in (np.zeros(3), np.ones(3), -np.ones(3))]
    assert len({tuple(c) for c in counts}) == 3


def test_a_column_without_values_counts_as_missing():
    bucket = Buckets.of_numbers(np.full(5, np.nan))
    found = score(bucket.counts(np.full(5, np.nan)), bucket.counts(np.array([1.0, np.nan])))
    assert (found.reference_missing, found.current_missing) == (1.0, 0.5) and found.psi == 0.0
    assert score(np.array([0, 0]), np.array([0, 3])) is None


def test_ids_keep_the_top_and_pool_the_rest():
    bucket = Buckets.of_ids(np.array([7, 7, 7, 5, 5, 9]), np.array([-3, -3, -3, -3]), top=2)
    assert bucket.names.tolist() == [-3, 7]
    assert bucket.counts(np.array([0, 7, 7, -3, 5, 123])).tolist() == [1, 1, 2, 2]
    assert Buckets.of_ids(np.zeros(3, np.int64), np.zeros(3, np.int64), 5).counts(np.array([0, 4])).tolist() == [1, 1]


def test_high_cardinality_ids_stay_quiet():
    rng = np.random.default_rng(2)
    for _ in range(20):
        reference, current = rng.integers(1, 3000, 6000), rng.integers(1, 3000, 2000)
        bucket = Buckets.of_ids(reference, current, 20)
        found = score(bucket.counts(reference), bucket.counts(current))
        assert found.js**2 - found.js_noise**2 < 0.1**2
