"""Progress of long work: a live bar on a terminal, a line every few seconds with the time left anywhere else."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Counts work done out of `total` units and prints share, speed and time left.

    Lines are printed at most every `interval_seconds`, so that logs of containers stay readable.
    """

    def __init__(self, label: str, total: int, unit: str = "", interval_seconds: float = 5.0):
        self.label, self.total, self.unit = label, total, unit
        self.interval_seconds = interval_seconds
        self.done = 0
        self.started = self.printed = time.monotonic()

    def advance(self, units: int = 1, note: str = "") -> None:
        """Record `units` more; `note` (a loss, say) is shown on the line."""
        self.done += units
        now = time.monotonic()
        if now - self.printed >= self.interval_seconds:
            self.printed = now
            self._print(now, note)

    def finish(self, note: str = "") -> None:
        """Print the closing line with the time it took."""
        seconds = time.monotonic() - self.started
        print(f"{self.label}: done, {self.done:,} {self.unit} in {seconds:.1f} s {note}".rstrip(), flush=True)

    def _print(self, now: float, note: str) -> None:
        elapsed = now - self.started
        left = elapsed / max(self.done, 1) * max(self.total - self.done, 0)
        share = self.done / max(self.total, 1)
        line = f"{self.label}: {share:4.0%}, {self.done:,} of {self.total:,} {self.unit}, {left:.0f} s left {note}"
        print(line.rstrip(), file=sys.stdout, flush=True)


def track(items: Iterable[T], label: str, total: int, unit: str = "") -> Iterator[T]:
    """Yield items while reporting progress."""
    progress = Progress(label, total, unit)
    for item in items:
        yield item
        progress.advance()
    progress.finish()
