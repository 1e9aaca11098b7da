"""A uniform sample of a window's rows at each level, which fixes the buckets and feeds the report."""

from pathlib import Path

import numpy as np

from monitoring.drift_rows import Batch, Column, batches, watched
from uniscale.samples import SampleSpec

Levels = dict[str, "Reservoir"]


class Reservoir:
    """A uniform sample of at most `size` rows of a stream of columns: the rows with the smallest random keys."""

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.keys = np.empty(0)
        self.columns: dict[str, np.ndarray] = {}

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Offer equally long columns (n,)."""
        if not columns:
            return
        fresh = self.rng.random(len(next(iter(columns.values()))))
        below = np.ones(len(fresh), bool) if len(self.keys) < self.size else fresh < self.keys.max()
        keys = np.concatenate([self.keys, fresh[below]])
        kept = np.argpartition(keys, self.size)[: self.size] if len(keys) > self.size else slice(None)
        self.columns = {
            name: np.concatenate([self.columns[name], values[below]])[kept] if self.columns else values[below][kept]
            for name, values in columns.items()
        }
        self.keys = keys[kept]


def _levels(batch: Batch, columns: tuple[Column, ...], repeat: bool) -> dict[str, dict[str, np.ndarray]]:
    """Columns of a batch by level; with `repeat`, candidates also carry their request's values."""
    found: dict[str, dict[str, np.ndarray]] = {"request": {}, "candidate": {}}
    for column in columns:
        found.setdefault(level_of(column), {})[column.name] = batch.values[column.name]
    if repeat:
        found["candidate"] |= {name: values[batch.request] for name, values in found["request"].items()}
    return found


def level_of(column: Column) -> str:
    """Which reservoir holds a column: lists of behaviours may differ in length, so each has its own."""
    return column.name if column.level == "behaviour" else column.level


def draw(
    samples: Path, spec: SampleSpec, domain: str, window: tuple[str, str], size: int, rng: np.random.Generator
) -> Levels:
    """Sample at most `size` rows of every level of a domain and window."""
    drawn: Levels = {}
    for batch in batches(samples, spec, domain, window):
        for level, values in _levels(batch, watched(spec, domain), domain == spec.domains[0]).items():
            drawn.setdefault(level, Reservoir(size, rng)).add(values)
    return drawn
