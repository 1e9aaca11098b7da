"""Tables of an experiment and the engine that computes them: DuckDB, or Spark from the same SQL rendered for it.

The SQL is DuckDB's. Spark writes each table as Parquet, which its later statements and DuckDB read: joins and sums a
user run on a cluster, checks and statistics here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import duckdb
import sqlglot

from uniscale.errors import DataError


class Engine(Protocol):
    """Makes tables by SQL."""

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """Can read every one of them."""

    def source(self, folder: Path, what: str) -> str:
        """What to select from to read the Parquet files of a folder partitioned by day; DataError without any."""

    def make(self, name: str, select: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Create or replace a table by a query in DuckDB's SQL with `$name` parameters."""


@dataclass(frozen=True)
class DuckDB:
    """Tables in the connection itself."""

    connection: duckdb.DuckDBPyConnection

    def source(self, folder: Path, what: str) -> str:
        """A table function."""
        return scan(folder, what)

    def make(self, name: str, select: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Create or replace a table."""
        self.connection.execute(f"CREATE OR REPLACE TABLE {name} AS {select}", dict(parameters or {}))


@dataclass(frozen=True)
class Spark:
    """Tables as Parquet that a Spark session writes, views of it in the session and in the connection."""

    connection: duckdb.DuckDBPyConnection
    session: Any  # a SparkSession; pyspark itself stays in features/
    scratch: Path  # on storage that the executors and this process share
    numbers: Iterator[int] = field(default_factory=count)  # a replaced table may still be read, so it keeps its folder

    def source(self, folder: Path, what: str) -> str:
        """A view over the files, columns matched by name."""
        files, name = _files(folder, what), f"source_{next(self.numbers)}"
        self.session.read.option("mergeSchema", True).parquet(files).createOrReplaceTempView(name)
        return name

    def make(self, name: str, select: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Compute a table and read it from here on."""
        folder = (self.scratch / f"{name}-{next(self.numbers)}").resolve()
        frame = self.session.sql(in_spark(select), args=dict(parameters or {}))
        frame.write.parquet(str(folder))
        self.session.read.schema(frame.schema).parquet(str(folder)).createOrReplaceTempView(name)
        self.connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM {_parquet(str(folder / '*.parquet'))}")


def in_spark(select: str) -> str:
    """A query of DuckDB in Spark's dialect, `$name` as `:name`."""
    return sqlglot.transpile(select, read="duckdb", write="spark")[0]


@contextmanager
def engine(out: Path, session: Any = None) -> Iterator[Engine]:
    """An engine with an empty database: Spark's where a session is given, DuckDB's without.

    Args:
        out: where the result will lie; Spark's tables are beside it until the block ends.
        session: a SparkSession.
    """
    with TemporaryDirectory() as spill, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '2GB'; SET temp_directory = '{spill}'")
        if session is None:
            yield DuckDB(connection)
            return
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".scratch-experiment-", dir=Path(out).parent) as scratch:
            yield Spark(connection, session, Path(scratch))


def scan(folder: Path, what: str) -> str:
    """A table function over the Parquet files of a folder partitioned by day."""
    return _parquet(_files(folder, what))


def _files(folder: Path, what: str) -> str:
    if not any(Path(folder).glob("day=*/*.parquet")):
        raise DataError(f"no {what} in {folder}: expected day=YYYY-MM-DD/*.parquet below it")
    return str(Path(folder).resolve() / "day=*" / "*.parquet")


def _parquet(pattern: str) -> str:
    quoted = pattern.replace("'", "''")
    return f"read_parquet('{quoted}', union_by_name = true, hive_partitioning = false)"
