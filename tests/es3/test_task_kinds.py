"""A task is a click or a conversion by its event type, whether or not it is the primary one."""

from datetime import timedelta

import pytest

from features.es3.attribution import Rules
from tests.es3.test_attribution import run
from uniscale.config import load_config
from uniscale.samples import LabelSource, Sampling

pytestmark = [pytest.mark.spark, pytest.mark.xdist_group("spark")]
NO_CLICKS = Rules("search", {"conversion": "purchase"}, {"conversion": timedelta(minutes=1000)})


def test_windows_follow_the_event_type():
    config = load_config(overrides=["samples.click_window_hours=5", "samples.conversion_window_days=2"]).samples
    clicks, days = timedelta(hours=5), timedelta(days=2)
    both = Rules.of(config, "search", {"click": "click", "conversion": "booking", "cart": "cart"})
    assert both.windows == {"click": clicks, "conversion": days, "cart": days} and both.clicks == ["click"]
    assert both.micros("click") == 5 * 3600 * 10**6
    one = Rules.of(config, "store", {"conversion": "purchase"})
    assert (one.primary, one.windows, one.clicks) == ("conversion", {"conversion": days}, [])


def test_a_primary_conversion_has_the_hierarchy_and_the_window_of_conversions(spark):
    """Items: "bound" was bought from a and then shown by b, "seen" and "late" are exposed, "unseen" is not."""
    samples = [
        ("a", "u", "bound", 0, Sampling.EXPOSED),
        ("b", "u", "bound", 60, Sampling.EXPOSED),
        ("a", "u", "seen", 0, Sampling.EXPOSED),
        ("b", "u", "seen", 60, Sampling.UNEXPOSED),
        ("a", "u", "unseen", 0, Sampling.UNEXPOSED),
        ("a", "u", "late", 0, Sampling.EXPOSED),
    ]
    events = [
        ("own", "conversion", "u", "bound", 50, True, "a"),
        ("clicked", "conversion", "u", "bound", 90, False, None),
        ("edge", "conversion", "u", "seen", 1000, False, None),  # far beyond the window of clicks
        ("past", "conversion", "u", "bound", 1060.0001, False, None),
        ("second edge", "conversion", "u", "bound", 1060, False, None),
        ("unexposed", "conversion", "u", "unseen", 1000, False, None),
        ("own edge", "conversion", "u", "late", 1000, True, "a"),
        ("own past", "conversion", "u", "late", 1000.0001, True, "a"),
    ]
    rows = run(spark, samples, events, NO_CLICKS).collect()
    assert {row["event_id"]: (row["request_id"], row["source"]) for row in rows} == {
        "own": ("a", LabelSource.IN_DOMAIN),
        "clicked": ("a", LabelSource.CLICKED),  # what it was bought from goes before the later exposure
        "edge": ("a", LabelSource.EXPOSED),
        "second edge": ("b", LabelSource.EXPOSED),  # its clicked sample is out of the window
        "unexposed": ("a", LabelSource.UNEXPOSED),
        "own edge": ("a", LabelSource.IN_DOMAIN),
    }
