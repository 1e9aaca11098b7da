"""A backfill's days: the history of drift filled, and a row a day of what the champion would have measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.drift_history import keep
from uniscale.artifacts import read_json

Table = tuple[str, list[str], list[list[str]]]
SHOWN = ("auc", "gauc", "calibration_ratio")


@dataclass(frozen=True)
class Filled:
    """A record a day, and the same as tables for people."""

    days: list[dict[str, Any]]
    tables: list[Table]


def fill(measured: Sequence[Path], drifted: Sequence[Path], history: Path) -> Filled:
    """Keep every day's drift and put it beside the day's measures, in order of time.

    Args:
        measured: folders with `measures.json` of the evaluation, one a day.
        drifted: folders with `drift.json` of the same days.
        history: folder of `monitoring.drift_history`.
    """
    days = []
    for evaluation, comparison in zip(measured, drifted, strict=True):
        drift = read_json(Path(comparison) / "drift.json")
        measures = read_json(Path(evaluation) / "measures.json")["measures"]
        keep(drift, history)
        shown = {
            key: value for key, value in measures.items() if key.count(".") == 1 and key.partition(".")[2] in SHOWN
        }
        window = drift["windows"]["current"]
        days.append({"window": window, "verdict": drift["verdict"], "drifted": drift["drifted"], "measures": shown})
    days.sort(key=lambda day: day["window"][1])
    names = sorted({name for day in days for name in day["measures"]})
    rows = [
        [f"{day['window'][0]} to {day['window'][1]}", day["verdict"], *(_number(day["measures"].get(n)) for n in names)]
        for day in days
    ]
    noticed = [[day["window"][1], line] for day in days for line in day["drifted"]]
    return Filled(
        days, [("The champion day by day", ["test days", "drift", *names], rows), ("Noticed", ["until", ""], noticed)]
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
