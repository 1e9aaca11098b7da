"""Delayed labels told from changed behaviour: a late feed lacks positives in the newest days and in those alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from monitoring.drift_rows import files
from uniscale.samples import LabelSource, SampleSpec, Sampling

SIGMAS = 4.0


def daily_rates(samples: Path, spec: SampleSpec, window: tuple[str, str]) -> dict[str, list[tuple[str, int, int]]]:
    """For each task: day, exposed rows, and in-domain positives among them, in the target domain."""
    found: dict[str, list[tuple[str, int, int]]] = {task: [] for task in spec.tasks}
    with duckdb.connect() as connection:
        for file in files(samples, spec.domains[0], window):
            day = file.parent.parent.name.removeprefix("day=")
            for task in spec.tasks:
                lists = ", ".join(f'unnest("{task}{end}") AS {n}' for end, n in (("", "label"), ("_source", "source")))
                rows, hits = connection.execute(
                    f"SELECT count(*), count(*) FILTER (label > 0 AND source = {int(LabelSource.IN_DOMAIN)}) FROM "
                    f"(SELECT unnest(sampling) AS sampling, {lists} FROM read_parquet(?, hive_partitioning = false)) "
                    f"WHERE sampling = {int(Sampling.EXPOSED)}",
                    [str(file)],
                ).fetchall()[0]
                found[task].append((day, rows, hits))
    return {task: _by_day(days) for task, days in found.items()}


def late_labels(task: str, days: Sequence[tuple[str, int, int]], warn: float) -> dict[str, Any] | None:
    """The newest days whose positives are not all in, None when they are.

    Args:
        task: its name.
        days: day, rows, positives, oldest first.
        warn: relative loss of the rate that counts.
    """
    late = 0
    while late < len(days) - 2:
        earlier, (_, rows, hits) = days[: len(days) - late - 1], days[len(days) - late - 1]
        usual = sum(h for _, _, h in earlier) / max(sum(r for _, r, _ in earlier), 1)
        expected = usual * rows
        if expected == 0 or hits >= (1 - warn) * expected or expected - hits < SIGMAS * np.sqrt(expected):
            break
        late += 1
    if not late:
        return None
    rate = sum(h for _, _, h in days[-late:]) / sum(r for _, r, _ in days[-late:])
    usual = sum(h for _, _, h in days[:-late]) / sum(r for _, r, _ in days[:-late])
    why = (
        f"late feed: {task} is at {rate:.2%} since {days[-late][0]} and was at {usual:.2%}; labels of the newest "
        f"{late} of {len(days)} days are missing"
    )
    return {"task": task, "days": late, "since": days[-late][0], "rate": rate, "usual": usual, "why": why}


def _by_day(days: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    total: dict[str, list[int]] = {}
    for day, rows, hits in days:
        sums = total.setdefault(day, [0, 0])
        sums[0] += rows
        sums[1] += hits
    return [(day, rows, hits) for day, (rows, hits) in sorted(total.items())]
