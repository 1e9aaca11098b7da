"""Pieces of SQL: names and strings quoted, and DuckDB connections that spill instead of growing."""

from pathlib import Path

import duckdb


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str | Path) -> str:
    """A string or path as an SQL literal."""
    return "'" + str(value).replace("'", "''") + "'"


def connect(spill: Path, memory_limit: str, database: str = ":memory:") -> duckdb.DuckDBPyConnection:
    """A connection in UTC that keeps to its memory limit and spills to the folder `spill` above it."""
    connection = duckdb.connect(database)
    connection.execute(
        f"SET TimeZone = 'UTC'; SET memory_limit = {text(memory_limit)}; SET temp_directory = {text(spill)}"
    )
    return connection
