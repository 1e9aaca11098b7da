"""How a log's days become warm-up, training, validation and test: by time, and only days whose labels are complete."""

import math
from dataclasses import dataclass
from datetime import date, timedelta

from uniscale.errors import DataError
from uniscale.sections import SamplesConfig

Span = tuple[date, date]


@dataclass(frozen=True)
class Splits:
    """First and last day (inclusive) of each split; `tail_days` is the time a label needs to become complete.

    Validation ends `tail_days` before the test begins, so no label of a training or validation row can use an event
    that happened after the model would have been built (the first test day).
    """

    train: Span
    valid: Span
    test: Span
    tail_days: int

    def as_json(self) -> dict[str, list[str]]:
        """`{"train": [first, last], …}` in ISO days, as manifests hold it."""
        return {name: [day.isoformat() for day in getattr(self, name)] for name in ("train", "valid", "test")}


def label_tail_days(config: SamplesConfig) -> int:
    """Whole days after which every event that could label a sample has happened."""
    return math.ceil(max(config.click_window_hours / 24, config.conversion_window_days))


def split_by_time(first: date, last: date, config: SamplesConfig) -> Splits:
    """Split the days `first` to `last` of a log: warm-up | train | valid | tail (immature) | test | tail (immature).

    Raises:
        DataError: the log has too few days for one day of training.
    """
    tail = label_tail_days(config)
    have = (last - first).days + 1
    need = config.warmup_days + 1 + config.valid_days + tail + config.test_days + tail
    if have < need:
        raise DataError(
            f"the log has {have} days ({first} to {last}) and the split needs {need}: samples.warmup_days "
            f"{config.warmup_days} + 1 of training + samples.valid_days {config.valid_days} + twice {tail} for labels "
            f"to close (samples.click_window_hours, samples.conversion_window_days) + samples.test_days "
            f"{config.test_days}; bring more days or lower these keys"
        )
    day = timedelta(days=1)
    test_first = last + day - timedelta(days=tail + config.test_days)
    valid_last = test_first - timedelta(days=tail + 1)
    valid_first = valid_last - timedelta(days=config.valid_days - 1)
    return Splits(
        train=(first + timedelta(days=config.warmup_days), valid_first - day),
        valid=(valid_first, valid_last),
        test=(test_first, test_first + timedelta(days=config.test_days - 1)),
        tail_days=tail,
    )
