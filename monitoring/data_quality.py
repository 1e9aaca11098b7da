"""Quality of the rows of a window, apart from whether their distribution moved: what no reference excuses."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from monitoring.drift_rows import Batch, Column


class Quality:
    """Counts over batches of one domain: infinite numbers, negative counts, requests without a candidate."""

    def __init__(self, columns: Iterable[Column], counts: frozenset[str]):
        self.numbers = [column.name for column in columns if column.kind == "number"]
        self.non_negative = counts
        self.infinite = dict.fromkeys(self.numbers, 0)
        self.negative = dict.fromkeys(self.numbers, 0)
        self.requests = self.empty = 0

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        self.requests += batch.requests
        self.empty += batch.requests - len(np.unique(batch.request))
        for name in self.numbers:
            values = batch.values[name]
            self.infinite[name] += int(np.isinf(values).sum())
            if name in self.non_negative:
                self.negative[name] += int((values < 0).sum())

    def problems(self, domain: str) -> list[dict[str, Any]]:
        """One entry a problem found: `domain`, `name`, `count`, `why`."""
        found = []
        for name in self.numbers:
            for count, what in ((self.infinite[name], "infinite values"), (self.negative[name], "negative counts")):
                if count:
                    found.append({"domain": domain, "name": name, "count": count, "why": f"{count:,} {what}"})
        if self.empty:
            why = f"{self.empty:,} of {self.requests:,} requests have no exposed candidate"
            found.append({"domain": domain, "name": "requests", "count": self.empty, "why": why})
        return found
