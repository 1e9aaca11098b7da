"""Validation of a log folder: clean rows go on, violating rows to quarantine with a reason, and the counts add up.

Every rule comes from `uniscale.logs.TABLES` (types, nulls, ranges, lengths, keys, references) or is a law of logs
(nothing is shown or done before its request); `features.validity` holds them. DuckDB does the work, out of core.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.sql import connect, quoted, text
from features.validity import SQL_TYPES, accepts, declared_columns, judge, leave_out
from uniscale.artifacts import atomic_folder, write_json
from uniscale.errors import DataError
from uniscale.logs import TABLES, TIMESTAMP, LogDescription, Table
from uniscale.progress import Progress
from uniscale.sections import IngestConfig

MEMORY_LIMIT = "2GB"
GROUP_ROWS = 100_000  # of a Parquet row group
ENOUGH_EVENTS, FAR = 20, 10  # of a day for its median; median absolute deviations from the other days' median
LISTED = "listed_items"  # items of valid candidate lists, judged one by one


def ingest(config: IngestConfig, logs: Path, out: Path) -> dict[str, Any]:
    """Validate a log folder into a clean one.

    Writes the tables in their contract's types, day tables repartitioned by UTC day (candidates and exposures by the
    day of their request) and sorted; `quarantine/<table>.parquet`, violating rows with a `reason` (and `original`, the
    row as it was, where a value could not be cast); `report.json`. A simulation's `truth/` stays behind.

    Returns:
        What `report.json` holds: `tables` (name -> rows_in, rows_out, quarantined, reasons; `listed_items` are those of
        valid candidate lists), `requests_by_day` and `warnings` (empty days and domains, tasks without events, items
        without embedding or title, shifted days, dropped columns).

    Raises:
        DataError: no description, a required table or column missing, a column of another type, an unreadable file, no
            request left, or a table whose quarantined share is above `max_quarantine_share` (report and quarantine are
            then in `<out>-rejected`).
    """
    logs, out = Path(logs), Path(out)
    description = LogDescription.load(logs)
    progress = Progress("ingest", len(TABLES) + 1, "tables")
    with atomic_folder(out) as folder, tempfile.TemporaryDirectory(prefix=".spill-", dir=out.parent) as spill:
        connection = connect(Path(spill), MEMORY_LIMIT, str(Path(spill) / "logs.duckdb"))
        present = [table for table in TABLES.values() if _is_present(logs, table)]
        report: dict[str, Any] = {"tables": {}, "requests_by_day": {}, "warnings": []}
        for table in present:
            dropped = _load(connection, logs, table, description)
            if dropped:
                report["warnings"].append(
                    f"{table.name}: dropped columns {dropped}, which description.json does not name"
                )
            judge(connection, table, description, config)
            stay = leave_out(connection) if table.name == "candidates" else 0
            report["tables"][table.name] = _counts(connection, table.name)
            if table.name == "candidates":
                report["tables"][LISTED] = _counts(connection, LISTED, valid=stay)
            progress.advance(note=table.name)
        report["requests_by_day"] = _requests_by_day(connection)
        report["warnings"] += _warnings(connection, description, report["requests_by_day"])
        rejected = rejection(config, report)
        if rejected:
            place = out.with_name(f"{out.name}-rejected")
            with atomic_folder(place) as kept:
                _write_quarantine(connection, report, kept)
            raise DataError(f"{rejected}; the rows and their reasons are in {place}")
        _write_quarantine(connection, report, folder)
        for table in present:
            _write_clean(connection, table, description, folder)
        connection.close()
        description.save(folder)
        progress.advance()
    total = sum(counts["quarantined"] for counts in report["tables"].values())
    progress.finish(f"({total:,} rows quarantined)")
    return report


def _source(logs: Path, table: Table) -> Path:
    return logs / table.name / "**" / "*.parquet" if table.by_day else logs / f"{table.name}.parquet"


def _is_present(logs: Path, table: Table) -> bool:
    present = any((logs / table.name).rglob("*.parquet")) if table.by_day else _source(logs, table).exists()
    if table.required and not present:
        others = sorted(path.name for path in logs.glob(f"{table.name}*"))
        beside = f" as Parquet, there is {', '.join(others)}" if others else ""
        raise DataError(
            f"no table {table.name} in {logs}: expected {_source(logs, table)}{beside}; uniscale/logs.py says which "
            "tables and columns a log folder has"
        )
    return present


def _load(connection: duckdb.DuckDBPyConnection, logs: Path, table: Table, description: LogDescription) -> list[str]:
    """Create `raw_<table>` in the contract's types; `failed` names the first value that could not be cast.

    Returns:
        Columns that nothing declares and that were left behind.
    """
    files = f"read_parquet({text(_source(logs, table))}, union_by_name = true, hive_partitioning = false)"
    columns = declared_columns(table, description)
    try:
        found = {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {files}").fetchall()}
        missing = [column.name for column in columns if column.name not in found and not column.nullable]
        missing += [column.name for column in columns[len(table.columns) :] if column.name not in found]
        if missing:
            raise DataError(
                f"{table.name}: no column {', '.join(missing)}; it has {', '.join(found)}. Write the column, or if "
                "description.json names it by mistake, take it out there"
            )
        casts, failures = [], []
        for column in columns:
            name, kind = quoted(column.name), SQL_TYPES[column.type]
            if column.name not in found:
                casts.append(f"CAST(NULL AS {kind}) AS {name}")
                continue
            if not accepts(column.type, found[column.name]):
                raise DataError(
                    f"{table.name}.{column.name} is {found[column.name]}, expected {kind}: convert it where the logs "
                    "are written"
                )
            casts.append(f"TRY_CAST({name} AS {kind}) AS {name}")
            if found[column.name] != kind:
                failed = f"{name} IS NOT NULL AND TRY_CAST({name} AS {kind}) IS NULL"
                failures.append(f"WHEN {failed} THEN {text(f'{column.name} is not {kind}')}")
        failed = f"CASE {' '.join(failures)} END" if failures else "NULL"
        whole = "CAST(to_json(source) AS VARCHAR)"
        connection.execute(f"""
            CREATE TABLE raw_{table.name} AS
            SELECT {", ".join(casts)}, CAST({failed} AS VARCHAR) AS failed,
                CASE WHEN failed IS NOT NULL THEN {whole} END AS original
            FROM {files} source""")
    except duckdb.Error as error:
        raise DataError(
            f"{table.name} cannot be read from {_source(logs, table)}: {str(error).splitlines()[0]}"
        ) from None
    return sorted(set(found) - {column.name for column in columns})


def _counts(connection: duckdb.DuckDBPyConnection, name: str, valid: int = 0) -> dict[str, Any]:
    """Counts of `judged_<name>`, and of so many `valid` rows that are not in it."""
    rows = connection.execute(f"SELECT reason, count(*) FROM judged_{name} GROUP BY 1 ORDER BY 1").fetchall()
    reasons = {reason: count for reason, count in rows if reason is not None}
    rows_in, quarantined = valid + sum(count for _, count in rows), sum(reasons.values())
    return {"rows_in": rows_in, "rows_out": rows_in - quarantined, "quarantined": quarantined, "reasons": reasons}


def _requests_by_day(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = connection.execute("""
        SELECT strftime(day, '%Y-%m-%d'), count(*) FROM judged_requests WHERE reason IS NULL GROUP BY day ORDER BY day
        """).fetchall()
    return dict(rows)


def _warnings(connection: duckdb.DuckDBPyConnection, description: LogDescription, by_day: dict[str, int]) -> list[str]:
    """What is odd but breaks no rule."""
    if not by_day:
        return []
    empty = connection.execute(f"""
        SELECT strftime(day, '%Y-%m-%d') FROM (
            SELECT unnest(generate_series(DATE '{min(by_day)}', DATE '{max(by_day)}', INTERVAL 1 DAY)) AS day
        ) ORDER BY day""").fetchall()
    found = [f"no request on {day}" for (day,) in empty if day not in by_day]
    for table, column, named in (
        ("requests", "domain", description.domains),
        ("events", "type", tuple(description.tasks.values())),
    ):
        rows = connection.execute(f"SELECT DISTINCT {column} FROM judged_{table} WHERE reason IS NULL").fetchall()
        found += [f"no row of {table} has {column} {name}" for name in named if (name,) not in rows]
    for column, flag in (("embedding", "has_embeddings"), ("title", "has_text")):
        asked = f"SELECT count(*) FILTER ({column} IS NULL), count(*) FROM judged_items WHERE reason IS NULL"
        lacking, items = connection.execute(asked).fetchall()[0]
        if lacking and getattr(description, flag):
            whole = f": set {flag} to false in description.json" if lacking == items else ""
            found.append(f"{lacking} of {items} item versions have no {column}{whole}")
    unseen = connection.execute("""
        SELECT count(*) FROM judged_events e ANTI JOIN judged_exposures x
        ON e.request_id = x.request_id AND e.item_id = x.item_id AND x.reason IS NULL
        WHERE e.reason IS NULL AND e.request_id IS NOT NULL""").fetchall()[0][0]
    found += _shifted_days(connection, next(iter(description.tasks.values()), ""))
    return [*found, f"{unseen} events name a request that did not show their item"] if unseen else found


def _shifted_days(connection: duckdb.DuckDBPyConnection, event: str) -> list[str]:
    """Days whose events of a type follow their requests by hours more or less than on other days.

    By the medians of days with enough of them, beyond an hour and what medians of days differ by anyway.
    """
    delayed = f"""
        WITH delays AS (
            SELECT CAST(r.ts AS DATE) AS day, median(epoch(e.ts) - epoch(r.ts)) / 3600 AS hours
            FROM judged_events e JOIN judged_requests r USING (request_id)
            WHERE e.reason IS NULL AND r.reason IS NULL AND e.type = $event
            GROUP BY 1 HAVING count(*) >= {ENOUGH_EVENTS}
        ), usual AS (SELECT median(hours) AS hours, mad(hours) AS spread FROM delays)
        SELECT strftime(day, '%Y-%m-%d'), delays.hours, usual.hours FROM delays, usual
        WHERE abs(delays.hours - usual.hours) > greatest(1, {FAR} * spread) ORDER BY day"""
    return [
        f"{event} events of {day} follow their requests by {hours:.1f} h, those of other days by {usual:.1f} h: were "
        "they written in another time zone?"
        for day, hours, usual in connection.execute(delayed, {"event": event}).fetchall()
    ]


def rejection(config: IngestConfig, report: dict[str, Any]) -> str:
    """Why a report stops a run, empty if it does not."""
    for name, counts in report["tables"].items():
        share = counts["quarantined"] / max(counts["rows_in"], 1)
        if share > config.max_quarantine_share:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in counts["reasons"].items())
            return (
                f"{name}: {counts['quarantined']} of {counts['rows_in']} rows ({share:.1%}) break the contract, more "
                f"than ingest.max_quarantine_share = {config.max_quarantine_share:.1%}: {reasons}"
            )
    return "" if report["requests_by_day"] else "no valid request in the logs"


def _write_quarantine(connection: duckdb.DuckDBPyConnection, report: dict[str, Any], folder: Path) -> None:
    write_json(folder / "report.json", report)
    for name, counts in report["tables"].items():
        if counts["quarantined"]:
            (folder / "quarantine").mkdir(exist_ok=True)
            rows = f"SELECT * EXCLUDE (day) FROM judged_{name} WHERE reason IS NOT NULL ORDER BY ALL"
            connection.execute(f"COPY ({rows}) TO {text(folder / 'quarantine' / f'{name}.parquet')} (FORMAT parquet)")


def _write_clean(
    connection: duckdb.DuckDBPyConnection, table: Table, description: LogDescription, folder: Path
) -> None:
    columns = declared_columns(table, description)
    schema = pa.schema([(column.name, column.type) for column in columns])
    names = ", ".join(quoted(column.name) for column in columns)
    times = [quoted(column.name) for column in table.columns if column.type == TIMESTAMP and table.by_day]
    order = ", ".join([*times, *(quoted(name) for name in table.key)])
    valid = f"FROM judged_{table.name} WHERE reason IS NULL"
    if table.by_day:
        rows = connection.sql(f"SELECT {names}, CAST(day AS VARCHAR) AS day {valid} ORDER BY day, {order}")
        _write_days(rows.to_arrow_reader(), schema, folder / table.name)
        return
    # Not DuckDB's own writer: it marks columns without nulls as such, so equal contracts would give unequal schemas.
    with pq.ParquetWriter(folder / f"{table.name}.parquet", schema, compression="zstd") as writer:
        for batch in connection.sql(f"SELECT {names} {valid} ORDER BY {order}").to_arrow_reader():
            writer.write_batch(batch.cast(schema))


def _write_days(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path) -> None:
    """Stream rows that are ordered by their last column, `day`, into one file a day.

    Row groups are counted from the start of a day, so that its bytes depend on its own rows alone.
    """
    open_day, writer, waiting = "", None, schema.empty_table()

    def flush(rows: int) -> None:
        nonlocal waiting
        if writer is not None and len(waiting):
            writer.write_table(waiting.slice(0, rows).combine_chunks(), row_group_size=rows)
            waiting = waiting.slice(rows)

    for batch in batches:
        days = batch.column("day").dictionary_encode()
        starts = np.flatnonzero(np.diff(days.indices.to_numpy(), prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(batch)], strict=True):
            day = days.dictionary[days.indices[start].as_py()].as_py()
            if day != open_day:
                flush(GROUP_ROWS)
                if writer is not None:
                    writer.close()
                part = folder / f"day={day}"
                part.mkdir(parents=True)
                open_day, writer = day, pq.ParquetWriter(part / "part-0.parquet", schema, compression="zstd")
            rows = pa.Table.from_batches([batch.slice(start, end - start).drop_columns(["day"]).cast(schema)])
            waiting = pa.concat_tables([waiting, rows])
            while len(waiting) >= GROUP_ROWS:
                flush(GROUP_ROWS)
    flush(GROUP_ROWS)
    if writer is not None:
        writer.close()
