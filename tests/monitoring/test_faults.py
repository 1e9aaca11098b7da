"""Planted faults are found and named; what is not planted is not named."""

import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from monitoring.behaviour_checks import wears_off
from monitoring.drift_faults import name_fault
from monitoring.experiment import analyse
from monitoring.label_delay import daily_rates, late_labels
from tests.monitoring.ab_logs import config, rewrite, write_experiment
from tests.monitoring.test_experiment import status
from tests.sample_folder import SPEC, write_samples
from uniscale.assignment import assign
from uniscale.cli import app
from uniscale.hashing import hash64

NONE_MISSING = (0.0, 0.0)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_a_frozen_feature_is_named(rng):
    for kind, values in (("number", rng.lognormal(3, 1, 4000)), ("id", rng.integers(1, 9, 4000))):
        assert name_fault(kind, values, np.full(4000, values[0]), NONE_MISSING).startswith("frozen")


def test_a_remapped_category_is_named(rng):
    old = rng.choice([11, 12, 13, 14], 4000, p=[0.5, 0.3, 0.15, 0.05])
    new = rng.choice([21, 22, 23, 24], 4000, p=[0.5, 0.3, 0.15, 0.05])
    assert name_fault("id", old, new, NONE_MISSING).startswith("remapped")
    swapped = rng.choice([11, 12, 13, 14], 4000, p=[0.05, 0.15, 0.3, 0.5])
    assert name_fault("id", old, swapped, NONE_MISSING).startswith("remapped")
    assert name_fault("id", old, rng.integers(11, 15, 4000), NONE_MISSING) is None  # another mix, not other names
    moved = rng.choice([11, 12, 13, 14], 4000, p=[0.45, 0.25, 0.18, 0.12])
    assert name_fault("id", old, moved, NONE_MISSING) is None  # near in shape, and as near by name


def test_a_change_of_unit_is_named_with_its_factor(rng):
    price = rng.lognormal(3, 1, 4000)
    for factor in (100, 0.01):
        named = name_fault("number", price, factor * rng.lognormal(3, 1, 4000), NONE_MISSING)
        assert float(re.search("values times ([0-9.]+)", named)[1]) == pytest.approx(factor, rel=0.15)
    assert name_fault("number", price, rng.lognormal(3.2, 1, 4000), NONE_MISSING) is None
    assert name_fault("number", price, rng.lognormal(4, 0.2, 4000), NONE_MISSING) is None  # another shape


def test_a_feature_that_is_no_longer_filled_is_named(rng):
    gone = np.full(4000, np.nan)
    assert name_fault("number", rng.normal(size=4000), gone, (0.0, 1.0)).startswith("no longer filled")


def test_late_labels_are_the_newest_days_and_only_those():
    usual = [(f"d{n}", 5000, 400) for n in range(10)]
    assert late_labels("click", usual, 0.25) is None
    late = late_labels("click", [*usual, ("d10", 5000, 210), ("d11", 5000, 40)], 0.25)
    assert (late["days"], late["since"]) == (2, "d10") and late["why"].startswith(
        "late feed: click is at 2.50% since d10"
    )
    dip = [*usual[:5], ("d5", 5000, 40), *usual[6:]]
    assert late_labels("click", dip, 0.25) is None
    noise = [(f"d{n}", 300, hits) for n, hits in enumerate((12, 15, 9, 14, 11, 8))]
    assert late_labels("click", noise, 0.25) is None


def test_daily_rates_are_those_of_the_rows(tmp_path):
    samples = write_samples(tmp_path / "s", requests_per_day=20)
    found = daily_rates(samples, SPEC, ("2026-01-05", "2026-01-12"))
    assert [day for day, _, _ in found["click"]] == [f"2026-01-{n:02d}" for n in range(5, 13)]
    assert all(0 < conversions <= clicks < rows for (_, rows, clicks), (_, _, conversions) in zip(*found.values()))


def test_bots_are_found_and_named(tmp_path):
    paths, settings = write_experiment(tmp_path, users=200, seed=51), config()
    robot = {"user_id": "u51-7", "variant": assign("u51-7", settings.salt, settings.weights)}

    def swarm(rows):
        first = rows[0] | robot
        ids = (f"bot-{first['ts']:%d}-{n}" for n in range(300))
        return rows + [first | {"request_id": i, "ts": first["ts"] + timedelta(seconds=n)} for n, i in enumerate(ids)]

    quiet = analyse(settings, out=tmp_path / "quiet", **paths)
    assert not any(check["name"] == "bots" for check in quiet["checks"])
    rewrite(paths["serving_log"], swarm)
    found = status(analyse(settings, out=tmp_path / "out", **paths), "bots")
    assert found["status"] == "warn" and "1 users ask like bots" in found["statement"] and "u51-7" in found["statement"]


def test_a_broken_logger_in_one_variant_is_a_sample_ratio_mismatch(tmp_path):
    paths = write_experiment(tmp_path, users=600, exposed=2, seed=52)
    rewrite(
        paths["serving_log"], lambda rows: [r for r in rows if r["variant"] == "champion" or hash64(r["user_id"]) % 3]
    )
    found = analyse(config(), out=tmp_path / "out", **paths)
    assert found["verdict"] == "invalid" and status(found, "sample ratio")["status"] == "block"


def test_a_novelty_effect_is_found_and_a_steady_lift_is_not(tmp_path):
    fading = write_experiment(
        tmp_path / "a", users=500, days=8, exposed=6, lift=[1.4, 1.2, 0.9, 0.6, 0.4, 0.2, 0.1, 0.0], seed=53
    )
    result = analyse(config(days=8), out=tmp_path / "a" / "out", **fading)
    assert "novelty effect" in status(result, "novelty")["statement"]
    steady = write_experiment(tmp_path / "b", users=500, days=8, exposed=6, lift=0.5, seed=54)
    result = analyse(config(days=8), out=tmp_path / "b" / "out", **steady)
    assert not any(check["name"] == "novelty" for check in result["checks"])


def test_a_trend_by_hand():
    # Days 0, 1, 2 with variance 0.01: slope 0.1, information 100 · 2, z = 0.1 · √200 = 1.414.
    slope, p = wears_off(np.array([0.0, 0.1, 0.2]), np.full(3, 0.01))
    assert slope == pytest.approx(0.1) and p == pytest.approx(0.1573, abs=1e-4)


def test_clocks_that_differ_are_said(tmp_path):
    paths = write_experiment(tmp_path, users=60, seed=55)
    rewrite(paths["logs"] / "events", lambda rows: [r | {"ts": r["ts"] - timedelta(hours=1)} for r in rows])
    result = analyse(config(), out=tmp_path / "out", **paths)
    assert "come before their request" in status(result, "clock skew")["statement"]
    assert "clocks of service and events differ" in (tmp_path / "out" / "experiment.html").read_text()
    paths["serving_log"].rename(tmp_path / "serving_log")
    example = Path(__file__).parents[2] / "docs" / "examples" / "search_ab.yaml"
    asked = ["experiment", "analyze", "--config", str(example), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    lenient, strict = (CliRunner().invoke(app, [*asked, *more]) for more in ([], ["--strict"]))
    assert (lenient.exit_code, strict.exit_code) == (0, 4) and "WARNING clock skew" in strict.output
