from datetime import date, timedelta

import pytest

from features.splits import Splits, label_tail_days, label_window, split_by_time
from uniscale.config import load_config
from uniscale.errors import DataError

CONFIG = load_config().samples.model_copy(
    update={
        "warmup_days": 7,
        "valid_days": 2,
        "test_days": 4,
        "click_window_hours": 24.0,
        "conversion_window_days": 2.5,
    }
)


EVENTS = ("click", "purchase")


def test_days_of_a_split_by_hand():
    splits = split_by_time(date(2026, 1, 1), date(2026, 1, 31), EVENTS, CONFIG)
    assert splits.tail_days == 3
    assert splits.test == (date(2026, 1, 25), date(2026, 1, 28))  # 29, 30, 31 complete its labels
    assert splits.valid == (date(2026, 1, 20), date(2026, 1, 21))  # 22, 23, 24 complete its labels
    assert splits.train == (date(2026, 1, 8), date(2026, 1, 19))
    assert splits.as_json()["valid"] == ["2026-01-20", "2026-01-21"]


def test_the_longer_window_rounded_up_is_the_tail():
    assert label_tail_days(EVENTS, CONFIG.model_copy(update={"click_window_hours": 73.0})) == 4


def test_only_the_windows_of_tasks_that_a_source_has_make_the_tail():
    assert label_window("click", CONFIG) == timedelta(hours=24)
    for event in ("purchase", "booking", "cart"):
        assert label_window(event, CONFIG) == timedelta(days=2.5)
    long_clicks = CONFIG.model_copy(update={"click_window_hours": 24.0 * 9})
    assert label_tail_days(["purchase"], long_clicks) == 3
    assert label_tail_days(["click"], CONFIG) == 1


def test_the_least_log_has_one_training_day_and_one_day_less_is_refused():
    splits = split_by_time(date(2026, 1, 1), date(2026, 1, 20), EVENTS, CONFIG)  # 7 + 1 + 2 + 3 + 4 + 3
    assert splits.train == (date(2026, 1, 8), date(2026, 1, 8))
    with pytest.raises(DataError, match=r"has 19 days .* needs 20: samples.warmup_days 7 .* samples.test_days 4"):
        split_by_time(date(2026, 1, 1), date(2026, 1, 19), EVENTS, CONFIG)


def test_a_written_split_reads_back_for_the_same_settings_only(tmp_path):
    splits = split_by_time(date(2026, 1, 1), date(2026, 1, 31), EVENTS, CONFIG)
    splits.save(tmp_path, CONFIG)
    assert Splits.load(tmp_path, CONFIG) == splits
    for name in ("warmup_days", "conversion_window_days"):
        with pytest.raises(DataError, match=f"samples.{name} is 1"):
            Splits.load(tmp_path, CONFIG.model_copy(update={name: 1}))
