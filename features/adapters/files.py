"""Opens the tables of a published dataset: `<name>.csv`, `<name>.parquet`, or a folder `<name>/` of either."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.sql import text
from uniscale.errors import DataError


@dataclass(frozen=True)
class Source:
    """A dataset's folder, and the name that messages call the dataset by."""

    name: str
    folder: str

    def view(self, connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str]) -> dict[str, str]:
        """Create the view `raw_<table>` over the files of a table; the columns of a CSV file are all text.

        Returns:
            The SQL type of each column found.

        Raises:
            DataError: there are no such files, they cannot be read, or they lack one of `columns`.
        """
        reader = self._reader(table)
        try:
            connection.execute(f"CREATE VIEW raw_{table} AS FROM {reader}")
            found = {row[0]: row[1] for row in connection.execute(f"DESCRIBE raw_{table}").fetchall()}
        except duckdb.Error as error:
            raise DataError(f"{table} of data.input = {self.folder!r} cannot be read: {error}") from None
        missing = sorted(set(columns) - set(found))
        if missing:
            raise DataError(f"{table} of data.input = {self.folder!r} lacks the columns {missing} of {self.name}")
        return found

    def _reader(self, table: str) -> str:
        for kind in ("parquet", "csv"):
            for place in (f"{table}.{kind}", f"{table}/*.{kind}"):
                if self.folder and any(Path(self.folder).glob(place)):
                    options = "" if kind == "parquet" else ", header = true, all_varchar = true"
                    return f"read_{kind}({text(Path(self.folder) / place)}{options})"
        raise DataError(
            f"data.input = {self.folder!r} holds no table {table} of {self.name}: give the folder of its release, with "
            f"{table}.csv, {table}.parquet or a folder {table} in it"
        )
