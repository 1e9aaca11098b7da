"""A log folder examined before a run: what ingest would quarantine, gaps, freshness, lost requests, labels, the split.

Nothing is kept: ingest writes its clean folder to a temporary place, and these measures are taken there.
"""

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from features import tables
from features.ingest import MEMORY_LIMIT, ingest, rejection
from features.splits import label_tail_days, label_window, split_by_time
from features.sql import connect
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.sections import IngestConfig, SamplesConfig

THIN = 0.5  # a day below this share of the median day's requests; weekends of a shop stay above it
EPOCH = date(1970, 1, 1).toordinal()
UNKNOWN_REQUEST = "refers to unknown requests.request_id"


def check_logs(rules: IngestConfig, samples: SamplesConfig, logs: Path, now: datetime) -> dict[str, Any]:
    """Examine a log folder against the contract and against the split and windows of a configuration.

    Args:
        rules: what ingest quarantines and what stops a run.
        samples: windows of the labels, and the split.
        logs: log folder in the contract.
        now: the time that the logs' age is counted to, with a time zone.

    Returns:
        broken: why ingest would stop a run, empty if it would not; the rest is there only where ingest could read on.
        name, limits: of the description.
        tables, warnings: as in ingest's report.
        days: first, last, volume (a row a day: day, requests, exposures, events), missing and thin days.
        freshness: table -> newest (ISO time), age_hours.
        requests_of_events: events, unnamed (no request given), unknown (one that the logs lack), and their share.
        labels: a row a task: window_hours, events (that name their request), within (share of them inside the window),
            median_hours, p99_hours, matured_until (last day whose windows have closed) and open_requests after it.
        split: fits, why not, tail_days, and days and requests of train, valid and test.

    Raises:
        DataError: there is no such folder.
    """
    logs = Path(logs)
    if not logs.is_dir():
        raise DataError(f"no folder {logs}: give the path of a log folder; docs/your-own-logs.md says what it holds")
    with tempfile.TemporaryDirectory(prefix="uniscale-check-") as place:
        clean = Path(place) / "clean"
        try:
            report = ingest(rules.model_copy(update={"max_quarantine_share": 1.0}), logs, clean)
        except DataError as error:
            return {"broken": str(error)}
        description = LogDescription.load(clean)
        empty = [name for name, counts in report["tables"].items() if not counts["rows_out"]]
        broken = rejection(rules, report) or (f"no valid row of {', '.join(empty)}" if empty else "")
        known = {
            "broken": broken,
            "name": description.name,
            "limits": list(description.limits),
            "tables": report["tables"],
            "warnings": report["warnings"],
        }
        if empty:
            return known
        (Path(place) / "spill").mkdir()
        with connect(Path(place) / "spill", MEMORY_LIMIT) as connection:
            tables.open_logs(connection, clean)
            return {
                **known,
                "days": _days(connection),
                "freshness": _freshness(connection, now),
                "requests_of_events": _requests_of_events(connection, report["tables"]["events"]),
                "labels": _labels(connection, description, samples),
                "split": _split(connection, description, samples),
            }


def _days(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    first, last = tables.request_days(connection)
    counts = {
        name: dict(connection.execute(f"SELECT {tables.day_number()}, count(*) FROM {name} GROUP BY 1").fetchall())
        for name in ("requests", "exposures", "events")
    }
    volume = [
        {"day": _date(day).isoformat(), **{name: of_day.get(day, 0) for name, of_day in counts.items()}}
        for day in range(first, last + 1)
    ]
    usual = median(counts["requests"].values())
    return {
        "first": volume[0]["day"],
        "last": volume[-1]["day"],
        "volume": volume,
        "usual_requests": usual,
        "missing": [row["day"] for row in volume if not row["requests"]],
        "thin": [row["day"] for row in volume if 0 < row["requests"] < THIN * usual],
    }


def _freshness(connection: duckdb.DuckDBPyConnection, now: datetime) -> dict[str, Any]:
    found = {}
    for table, column in (("requests", "ts"), ("exposures", "ts"), ("events", "ts"), ("items", "valid_from")):
        newest = connection.execute(f"SELECT max(epoch_us({column})) FROM {table}").fetchall()[0][0]
        if newest is not None:
            at = datetime.fromtimestamp(newest / 1e6, UTC)
            age = (now - at).total_seconds() / 3600
            found[table] = {"newest": at.isoformat(timespec="seconds"), "age_hours": age}
    return found


def _requests_of_events(connection: duckdb.DuckDBPyConnection, counts: dict[str, Any]) -> dict[str, Any]:
    unnamed = connection.execute("SELECT count(*) FROM events WHERE request_id IS NULL").fetchall()[0][0]
    unknown = counts["reasons"].get(UNKNOWN_REQUEST, 0)
    share = (unnamed + unknown) / max(counts["rows_in"], 1)
    return {"events": counts["rows_in"], "unnamed": unnamed, "unknown": unknown, "share": share}


def _labels(
    connection: duckdb.DuckDBPyConnection, description: LogDescription, samples: SamplesConfig
) -> list[dict[str, Any]]:
    """How long after their request the events of each task came, and up to which day no more can come."""
    end = connection.execute("SELECT max(epoch_us(ts)) FROM (SELECT ts FROM requests UNION ALL SELECT ts FROM events)")
    newest = datetime.fromtimestamp(end.fetchall()[0][0] / 1e6, UTC)
    rows = []
    for task, kind in description.tasks.items():
        hours = label_window(kind, samples) / timedelta(hours=1)
        events, within, half, p99 = connection.execute(
            """
            SELECT count(*), avg(CAST(delay <= $1 AS INTEGER)), median(delay), quantile_cont(delay, 0.99)
            FROM (
                SELECT (epoch_us(e.ts) - epoch_us(r.ts)) / 3.6e9 AS delay
                FROM events e JOIN requests r USING (request_id) WHERE e.type = $2 AND r.domain = $3
            )""",
            [hours, kind, description.target],
        ).fetchall()[0]
        closed = newest - timedelta(hours=hours)
        matured = closed.date() - timedelta(days=1)  # the day of `closed` itself is not over
        asked = "SELECT count(*) FROM requests WHERE domain = ? AND CAST(ts AS DATE) > ?"
        left = connection.execute(asked, [description.target, matured])
        rows.append(
            {
                "task": task,
                "event": kind,
                "window_hours": hours,
                "events": events,
                "within": within,
                "median_hours": half,
                "p99_hours": p99,
                "matured_until": matured.isoformat(),
                "open_requests": left.fetchall()[0][0],
            }
        )
    return rows


def _split(
    connection: duckdb.DuckDBPyConnection, description: LogDescription, samples: SamplesConfig
) -> dict[str, Any]:
    first, last = map(_date, tables.request_days(connection))
    events, target = description.tasks.values(), description.target
    tail = label_tail_days(events, samples)
    try:
        split = split_by_time(first, last, events, samples)
    except DataError as error:
        return {"fits": False, "why": str(error), "tail_days": tail, "spans": []}
    spans = []
    for name, (start, end) in split.as_json().items():
        asked = "SELECT count(*) FROM requests WHERE domain = ? AND CAST(ts AS DATE) BETWEEN ? AND ?"
        requests = connection.execute(asked, [target, start, end]).fetchall()[0][0]
        spans.append({"split": name, "first": start, "last": end, "requests": requests})
    empty = [span["split"] for span in spans if not span["requests"]]
    why = f"no {target} request falls into {', '.join(empty)}: choose other samples.*_days" if empty else ""
    return {"fits": not empty, "why": why, "tail_days": tail, "spans": spans}


def _date(day: int) -> date:
    return date.fromordinal(EPOCH + day)
