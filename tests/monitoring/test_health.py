import pytest
from scipy.stats import chisquare

from monitoring.health import sample_ratio_check

COOKIE_CATS = (44_700, 45_489)  # players of gate_30 and gate_40 in the public Cookie Cats data set (90,189 rows)


def check(control, treatment, expected=0.5):
    return sample_ratio_check(control, treatment, expected, warn=0.01, block=0.001)


def test_cookie_cats_warns_and_does_not_block():
    found = check(*COOKIE_CATS)
    assert found["p"] == pytest.approx(0.0086, abs=5e-5)
    assert found["status"] == "warn"
    assert "44,700" in found["statement"] and "p = 0.0086 < 0.01" in found["statement"]


def test_an_uneven_split_of_a_hundred_thousand_users_by_hand():
    # z = 500 / √(10⁵ / 4) = 3.1623, so p = 0.001565: a warning, not yet a block.
    found = check(49_500, 50_500)
    assert found["p"] == pytest.approx(0.0015654, abs=1e-6) and found["status"] == "warn"
    assert check(49_400, 50_600)["status"] == "block"  # z = 3.795
    assert check(49_900, 50_100)["status"] == "pass"


def test_it_is_the_chi_square_test_for_planned_weights():
    for counts, share in (((9_100, 900), 0.1), ((8_000, 2_100), 0.2)):
        total = sum(counts)
        expected = [total * (1 - share), total * share]
        assert check(*counts, expected=share)["p"] == pytest.approx(chisquare(counts, expected).pvalue, rel=1e-9)


def test_few_users_use_the_exact_test():
    assert check(0, 10)["p"] == pytest.approx(2 * 0.5**10)
