"""The bench of the experiment statistics, small: the same functions, fewer experiments."""

import pytest

from benchmarks.experiments import LEVEL, analysis_seconds, band, peeking, sample_ratio_power
from benchmarks.faults import false_alarms


def test_a_sample_ratio_of_50_5_is_noticed_as_often_as_the_normal_distribution_says():
    # z = 2 (0.505 − 0.5) √1e5 = 3.162 standard errors: P(|Z + 3.162| > 2.576) = 0.721, beyond 3.291: 0.449.
    power = sample_ratio_power(0.505, 100_000, 3000, 1)
    assert power["p < 0.01"] == pytest.approx(0.721, abs=0.035) and power["p < 0.001"] == pytest.approx(
        0.449, abs=0.035
    )
    fair = sample_ratio_power(0.5, 100_000, 3000, 2)
    assert fair["p < 0.01"] <= band(3000, 0.01, 1)[1]


def test_daily_looks_keep_the_level_of_the_always_valid_interval_alone_and_see_a_large_lift():
    watched = peeking(200, 600, 14, 3)
    assert watched["always valid"] <= band(200, LEVEL, 1)[1] < watched["fixed horizon"]
    assert peeking(50, 2000, 14, 4, lift=0.4)["always valid"] > 0.9


def test_the_sized_table_is_analysed(tmp_path):
    assert analysis_seconds(400, 3, tmp_path)["rows"] == 1200


def test_quiet_weeks_stay_quiet():
    found = false_alarms(weeks=6, rows=20_000, seed=9)
    assert found["columns"] * found["weeks"] == 60 and found["alarms a week"] <= 0.34
