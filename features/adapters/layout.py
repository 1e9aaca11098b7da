"""Lays DuckDB tables out as a log folder: one file for users and items, one file a day for the rest."""

import shutil
from pathlib import Path

import duckdb

from features.sql import text
from uniscale.artifacts import atomic_folder
from uniscale.logs import TABLES, LogDescription
from uniscale.sections import DataConfig

DAYS = {  # SQL of each row's day; candidates and exposures go to the day of their request
    "requests": "CAST(ts AS DATE)",
    "candidates": "CAST((SELECT r.ts FROM requests r WHERE r.request_id = t.request_id) AS DATE)",
    "exposures": "CAST((SELECT r.ts FROM requests r WHERE r.request_id = t.request_id) AS DATE)",
    "events": "CAST(ts AS DATE)",
}


def open_database(out: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in UTC with one thread, so that rows leave in the order asked for; `write_folder` closes it.

    What does not fit into 80 % of the machine's memory, DuckDB's own limit, goes to a folder beside `out`.
    """
    connection, spill = duckdb.connect(), Path(out).with_name(f".spill-{Path(out).name}")
    spill.parent.mkdir(parents=True, exist_ok=True)  # DuckDB makes the last folder of a path only
    connection.execute(f"SET TimeZone = 'UTC'; SET threads = 1; SET temp_directory = {text(spill)}")
    return connection


def write_folder(connection: duckdb.DuckDBPyConnection, description: LogDescription, out: Path) -> dict[str, int]:
    """Write every contract table that the connection has, and the description; the connection is closed.

    Returns:
        Rows of each table.
    """
    present = {row[0] for row in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()}
    rows = {}
    with atomic_folder(out) as folder:
        description.save(folder)
        for name, table in TABLES.items():
            if name not in present:
                continue
            order = ", ".join(table.key)
            if not table.by_day:
                connection.execute(
                    f"COPY (FROM {name} ORDER BY {order}) TO {text(folder / f'{name}.parquet')} (FORMAT parquet)"
                )
            else:
                connection.execute(f"""
                    COPY (SELECT *, strftime({DAYS[name]}, '%Y-%m-%d') AS day FROM {name} t ORDER BY day, {order})
                    TO {text(folder / name)} (FORMAT parquet, PARTITION_BY (day), FILENAME_PATTERN 'part-{{i}}')""")
            rows[name] = connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
    connection.close()
    return rows


def copy_logs(config: DataConfig, out: Path) -> None:
    """Copy the folder `config.input`, which is in the contract already."""
    shutil.copytree(config.input, out)


def day_parts(ts: str, utc_offset_hours: int) -> str:
    """SQL of a request's scenarios by its local clock: weekday or weekend, and evening from five o'clock."""
    local = f"({ts} + INTERVAL 1 HOUR * ({utc_offset_hours}))"
    return f"""list_filter([CASE WHEN isodow({local}) < 6 THEN 'weekday' ELSE 'weekend' END,
        CASE WHEN hour({local}) >= 17 THEN 'evening' END], lambda s: s IS NOT NULL)"""
