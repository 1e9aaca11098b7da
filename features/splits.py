"""How a log's days become warm-up, training, validation and test: by time, and only days whose labels are complete."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from uniscale.artifacts import read_json, write_json
from uniscale.errors import DataError
from uniscale.logs import CLICK
from uniscale.sections import SamplesConfig

Span = tuple[date, date]
# What a split is made of; a written one is refused by a configuration that says otherwise.
SETTINGS = ("warmup_days", "valid_days", "test_days", "click_window_hours", "conversion_window_days")


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

    def save(self, folder: Path, config: SamplesConfig) -> None:
        """Write `splits.json` into a folder, with the settings it was made by."""
        settings = {name: getattr(config, name) for name in SETTINGS}
        write_json(Path(folder) / "splits.json", {**self.as_json(), "tail_days": self.tail_days, "settings": settings})

    @classmethod
    def load(cls, folder: Path, config: SamplesConfig) -> "Splits":
        """Inverse of `save`.

        Raises:
            DataError: no split there, or one made by other settings.
        """
        raw = read_json(Path(folder) / "splits.json")
        for name, value in raw["settings"].items():
            if getattr(config, name) != value:
                raise DataError(
                    f"samples.{name} is {getattr(config, name)}, and {folder} was built with {value}: the features "
                    "step decides the split, so run it again with the new value"
                )

        def span(name: str) -> Span:
            first, last = raw[name]
            return date.fromisoformat(first), date.fromisoformat(last)

        return cls(span("train"), span("valid"), span("test"), raw["tail_days"])

    @property
    def days(self) -> tuple[date, ...]:
        """Every day of the splits, in order."""
        return tuple(day for name in ("train", "valid", "test") for day in self.days_of(name))

    def days_of(self, name: str) -> list[date]:
        """Every day of a split, in order."""
        first, last = getattr(self, name)
        return [first + timedelta(days=day) for day in range((last - first).days + 1)]

    def as_json(self) -> dict[str, list[str]]:
        """`{"train": [first, last], …}` in ISO days, as manifests hold it."""
        return {name: [day.isoformat() for day in getattr(self, name)] for name in ("train", "valid", "test")}


def label_window(event: str, config: SamplesConfig) -> timedelta:
    """How long after a sample an event of this type may label it: clicks have a window, conversions another."""
    hours, days = config.click_window_hours, config.conversion_window_days
    return timedelta(hours=hours) if event == CLICK else timedelta(days=days)


def label_tail_days(events: Iterable[str], config: SamplesConfig) -> int:
    """Whole days after which every event of these types that could label a sample has happened."""
    return math.ceil(max(label_window(event, config) for event in events) / timedelta(days=1))


def split_by_time(first: date, last: date, events: Iterable[str], config: SamplesConfig) -> Splits:
    """Split the days `first` to `last` of a log: warm-up | train | valid | tail (immature) | test | tail (immature).

    `events` are the types that make some task positive.

    Raises:
        DataError: the log has too few days for one day of training.
    """
    tail = label_tail_days(events, config)
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
