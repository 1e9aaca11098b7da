"""An experiment whose data are one table: a row a randomised unit, or a row a unit and day.

The table becomes the `user_days` of `monitoring.outcomes`, so scorecard, looks by day and checks are the same code.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from monitoring.definition import Definition, UnitsSource
from monitoring.outcomes import Outcomes
from uniscale.config import nearest
from uniscale.errors import DataError


@dataclass
class Units(Outcomes):
    """Tables `user_days` (user_id, variant, day or null, the metrics' columns) and `table_rows` as they came."""

    columns: tuple[str, ...] = ()
    by_day: bool = False

    def users(
        self,
        until: str | None = None,
        scenario: str | None = None,
        new: bool | None = None,
        window: int | None = None,
        only: tuple[str, ...] | None = None,
    ) -> str:
        """Name of a table with one row a unit; `until` is the last day counted, `only` the columns asked for."""
        assert scenario is None and new is None and window is None, "a table of units has no requests to choose from"
        if not self.by_day:
            return "user_days"
        chosen = self.columns if only is None else only
        sums = ", ".join(f'sum("{name}") AS "{name}"' for name in chosen)
        where = "TRUE" if until is None else "day <= CAST($until AS DATE)"
        self.connection.execute(
            f"CREATE OR REPLACE TABLE users AS SELECT user_id, variant, {sums} FROM user_days "
            f"WHERE {where} GROUP BY ALL",
            {} if until is None else {"until": until},
        )
        return "users"


def load_units(
    connection: duckdb.DuckDBPyConnection,
    definition: Definition,
    source: UnitsSource,
    data: Path,
    variants: tuple[str, str],
) -> Units:
    """Read the table; rows that repeat a unit (and day) count once, units seen in both variants are left out.

    Raises:
        DataError: no such file, a missing column, or a value of a metric that is no finite number.
    """
    table = scan_table(data)
    metrics = definition.means
    covariates = {m.covariate for m in metrics if isinstance(m.covariate, str)}
    columns = tuple(dict.fromkeys([c for m in metrics for c in m.columns] + sorted(covariates)))
    named = [source.unit, source.variant, *([source.day] if source.day else []), *columns]
    require_columns(connection, table, data, named)
    day = f'CAST("{source.day}" AS DATE)' if source.day else "NULL"
    values = "".join(f', CAST("{name}" AS DOUBLE) AS "{name}"' for name in columns)
    try:
        connection.execute(
            f'CREATE TABLE table_rows AS SELECT CAST("{source.unit}" AS VARCHAR) AS user_id, '
            f'CAST("{source.variant}" AS VARCHAR) AS variant, {day} AS day{values} FROM {table}'
        )
    except duckdb.ConversionException as error:
        raise DataError(f"{data}: {str(error).splitlines()[0]}; metrics need numbers, days need dates") from None
    for name in columns:
        bad = connection.execute(f'SELECT count(*) FROM table_rows WHERE "{name}" IS NULL OR NOT isfinite("{name}")')
        if wrong := bad.fetchone()[0]:  # type: ignore[index]
            raise DataError(
                f"{data}: {wrong:,} values of {name} are missing or not finite; fill them or drop their units"
            )
    connection.execute("CREATE VIEW served AS SELECT user_id, variant, day FROM table_rows")
    connection.execute(
        """
        CREATE TABLE user_days AS
        SELECT * FROM table_rows
        WHERE list_contains($variants, variant) AND user_id IS NOT NULL
            AND user_id NOT IN (
                SELECT user_id FROM table_rows WHERE list_contains($variants, variant) AND user_id IS NOT NULL
                GROUP BY user_id HAVING min(variant) <> max(variant))
        """,
        {"variants": list(variants)},
    )
    key = "user_id, day" if source.day else "user_id"
    repeated = connection.execute(f"SELECT count(*) - count(DISTINCT ({key})) FROM user_days").fetchone()
    if repeated and repeated[0]:
        connection.execute(f"CREATE OR REPLACE TABLE user_days AS SELECT DISTINCT ON ({key}) * FROM user_days")
    return Units(connection, has_before=bool(covariates), columns=columns, by_day=source.day is not None)


def scan_table(data: Path) -> str:
    """A table function over a CSV or Parquet file."""
    data = Path(data)
    if not data.is_file():
        raise DataError(f"no file {data}: give the table of the experiment with --data")
    if data.suffix not in (".csv", ".parquet"):
        raise DataError(f"{data}: expected a .csv or .parquet file")
    return f"read_{data.suffix[1:]}('{str(data).replace(chr(39), chr(39) * 2)}')"


def require_columns(connection: duckdb.DuckDBPyConnection, table: str, data: Path, named: list[str]) -> None:
    """Raise a DataError for the first named column that the table lacks."""
    there = [name for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()]
    for name in named:
        if name not in there:
            raise DataError(f"{data}: no column {name!r}{nearest(name, there)}")
