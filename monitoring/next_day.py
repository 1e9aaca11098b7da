"""Served logs and delayed labels become the next training day, once the labels are mature.

A day may train when the longest attribution window has passed since its end: earlier, a purchase that is still to come
would be learned as none. What was served replaces what was logged as requests and exposures, so the day holds what
users really saw, in the order they saw it; users, items and events are those of the live logs.
"""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.tables import scan
from uniscale.artifacts import atomic_folder
from uniscale.errors import DataError
from uniscale.logs import TABLES, LogDescription


def mature_days(days: list[str], now: datetime, window_days: float) -> list[str]:
    """Days whose labels are in: their end lies at least the window before `now`."""
    ready = now.astimezone(UTC) - timedelta(days=window_days)
    return [day for day in sorted(days) if _end(day) <= ready]


def write_next_days(
    serving_log: Path, logs: Path, out: Path, now: datetime, window_days: float, events_until: datetime | None = None
) -> dict[str, Any]:
    """Write the mature served days as a log folder in the contract.

    Args:
        serving_log: folder of `uniscale.serving_log` rows.
        logs: the live log folder: users, items, exposures (what was really shown) and events.
        out: log folder to write.
        now: the present.
        window_days: longest attribution window (`samples.conversion_window_days`).
        events_until: how far the feed of events has come, if that is known; it counts in place of `now` when earlier.

    Returns:
        `days` written, `waiting` days that are not mature, and rows by table.

    Raises:
        DataError: a log is missing, or no day is mature.
    """
    known = min(now, events_until) if events_until is not None else now
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        served = scan(Path(serving_log), "serving log")
        every = [str(d) for (d,) in connection.execute(f"SELECT DISTINCT CAST(ts AS DATE) FROM {served}").fetchall()]
        days = mature_days(every, known, window_days)
        waiting = sorted(set(every) - set(days))
        if not days:
            raise DataError(
                f"{serving_log}: no day is mature, labels are known until {known:%Y-%m-%d %H:%M} and take "
                f"{window_days:g} days; the first day is {min(every)}"
            )
        description, counts = LogDescription.load(logs), {}
        connection.execute(
            f"CREATE TABLE asked AS SELECT DISTINCT ON (request_id) request_id, user_id, ts, query, scenario, item_ids "
            f"FROM {served} WHERE list_contains($days, CAST(CAST(ts AS DATE) AS VARCHAR)) ORDER BY request_id, ts",
            {"days": days},
        )
        with atomic_folder(Path(out)) as folder:
            description.save(folder)
            for name in ("users", "items"):
                shutil.copy(Path(logs) / f"{name}.parquet", folder / f"{name}.parquet")
            context = _given(connection, logs, description)
            parts = {
                "requests": f"SELECT request_id, $domain AS domain, scenario, user_id, ts, query{context} FROM asked",
                "candidates": _candidates(Path(logs)),
                "exposures": f"SELECT e.* FROM {scan(Path(logs) / 'exposures', 'exposures')} e SEMI JOIN asked "
                "USING (request_id)",
                "events": f"SELECT DISTINCT ON (event_id) e.* FROM {scan(Path(logs) / 'events', 'events')} e "
                f"WHERE ts <= $known AND (request_id IS NULL OR request_id IN (SELECT request_id FROM asked)) "
                "AND CAST(ts AS DATE) >= CAST($first AS DATE)",
            }
            for name, sql in parts.items():
                given: dict[str, Any] = {"domain": description.target} if "$domain" in sql else {}
                given |= {"known": known, "first": days[0]} if "$known" in sql else {}
                counts[name] = _write(folder / name, name, connection.sql(sql, params=given).to_arrow_table())
    return {"days": days, "waiting": waiting, "rows": counts}


def _candidates(logs: Path) -> str:
    """The whole list where the live logs have it, else what was answered."""
    if not any((logs / "candidates").glob("day=*/*.parquet")):
        return "SELECT request_id, item_ids, CAST(NULL AS FLOAT[]) AS scores, ts FROM asked"
    listed = scan(logs / "candidates", "candidates")
    return f"SELECT c.*, asked.ts FROM {listed} c JOIN asked USING (request_id)"


def _given(connection: duckdb.DuckDBPyConnection, logs: Path, description: LogDescription) -> str:
    """Context columns of the live requests, which the serving log does not keep."""
    if not description.context or not (Path(logs) / "requests").exists():
        return ""
    chosen = ", ".join(f'"{name}"' for name in description.context)
    connection.execute(
        f"CREATE TABLE given AS SELECT DISTINCT ON (request_id) request_id, {chosen} "
        f"FROM {scan(Path(logs) / 'requests', 'requests')}"
    )
    return "".join(
        f', (SELECT any_value(g."{n}") FROM given g WHERE g.request_id = asked.request_id) AS "{n}"'
        for n in description.context
    )


def _write(folder: Path, name: str, table: pa.Table) -> int:
    """Rows by the day of their time; columns that only served to find the day are dropped."""
    fields = {column.name: column.type for column in TABLES[name].columns}
    days = [f"{ts:%Y-%m-%d}" for ts in table["ts"].to_pylist()]
    kept = [column for column in table.column_names if column != "ts" or "ts" in fields]
    table = table.select(kept)
    table = table.cast(pa.schema([(f.name, fields.get(f.name, f.type)) for f in table.schema]))
    for day in sorted(set(days)):
        part = folder / f"day={day}"
        part.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.array([d == day for d in days])), part / "part-0.parquet", compression="zstd")
    return len(days)


def _end(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day) + timedelta(days=1), datetime.min.time(), UTC)
