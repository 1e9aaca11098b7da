"""An experiment whose data are one table: a row a randomised unit, or a row a unit and day.

Units get dense numbers, so that millions of them are summed by place; scorecard and checks are the code of the logs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from tea_tasting.aggr import Aggregates

from monitoring.definition import Definition, UnitsSource
from monitoring.metrics import Metric
from monitoring.outcomes import Look, Outcomes
from uniscale.config import nearest
from uniscale.errors import DataError

MAX_CELLS = 2_000_000_000  # units times days, a byte each while repeated rows are looked for


@dataclass
class Units(Outcomes):
    """Tables `served` (user_id, variant) and `user_days` (a unit's number as user_id, variant, day, columns)."""

    columns: tuple[str, ...] = ()
    by_day: bool = False
    table_rows: int = 0
    nameless: int = 0  # rows without a unit or a variant
    repeated: int = 0  # rows beyond the first of a unit (and day)

    def users(
        self,
        until: str | None = None,
        scenario: str | None = None,
        new: bool | None = None,
        window: int | None = None,
        since: str | None = None,
    ) -> str:
        """Name of a table with one row a unit."""
        chosen = {"until": until, "scenario": scenario, "new": new, "window": window, "since": since}
        assert set(chosen.values()) == {None}, f"a table of units has no requests to choose from: {chosen}"
        if not self.by_day:
            return "user_days"
        sums = ", ".join(f'sum("{name}") AS "{name}"' for name in self.columns)
        self.connection.execute(
            f"CREATE OR REPLACE TABLE users AS SELECT user_id, any_value(variant) AS variant, {sums} FROM user_days "
            "GROUP BY user_id"
        )
        return "users"

    def looks(self, metrics: tuple[Metric, ...], days: list[str], cumulative: bool = True) -> Iterator[Look]:
        """Aggregates up to each day, from sums that are carried on from the day before, or of each day alone."""
        covariates = [metric.covariate for metric in metrics if isinstance(metric.covariate, str)]
        names = list(dict.fromkeys([c for m in metrics for c in (*m.columns, *filter(None, [m.counts]))] + covariates))
        chosen = ", ".join(f'"{name}"' for name in names)
        size = self.one("SELECT coalesce(max(user_id) + 1, 0) FROM user_days")
        sums, seen, arm = np.zeros((size, len(names))), np.zeros(size, bool), np.zeros(size, np.int64)
        variants = [name for (name,) in self.rows("SELECT DISTINCT variant FROM user_days ORDER BY 1")]
        for day in days:
            found = self.connection.execute(
                f"SELECT user_id AS place, list_position($variants, variant) - 1 AS arm, {chosen} FROM user_days "
                "WHERE day = CAST($day AS DATE)",
                {"variants": variants, "day": day},
            ).fetchnumpy()
            place = found["place"]
            if not cumulative:
                sums[:], seen[:] = 0.0, False
            sums[place] += np.stack([found[name] for name in names], axis=1)
            seen[place], arm[place] = True, found["arm"]
            arms = {v: _moments(sums[seen & (arm == n)], names) for n, v in enumerate(variants)}
            arms = {variant: moments for variant, moments in arms.items() if moments.count()}
            totals = {v: {name: found.mean(name) * found.count() for name in names} for v, found in arms.items()}
            yield day, arms, totals


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
    table, metrics = scan_table(data), definition.means
    covariates = [m.covariate for m in metrics if isinstance(m.covariate, str)]
    needed = [c for m in metrics for c in (*m.columns, *filter(None, [m.counts]))] + covariates
    columns = tuple(dict.fromkeys(needed))
    named = [source.unit, source.variant, *([source.day] if source.day else []), *columns]
    require_columns(connection, table, data, named)
    unit, arm = f'CAST("{source.unit}" AS VARCHAR)', f'CAST("{source.variant}" AS VARCHAR)'
    named_rows = f"{unit} IS NOT NULL AND {arm} IS NOT NULL"
    rows, nameless = connection.execute(
        f"SELECT count(*), count(*) FILTER (NOT ({named_rows})) FROM {table}"
    ).fetchall()[0]
    connection.execute(
        f"CREATE TABLE served AS SELECT any_value({unit}) AS user_id, hash({unit}) AS key, {arm} AS variant, "
        f"count(*) AS times FROM {table} WHERE {named_rows} GROUP BY key, variant"
    )
    connection.execute(
        "CREATE TABLE units AS SELECT key, any_value(variant) AS variant, "
        "CAST(row_number() OVER () - 1 AS INTEGER) AS user_id FROM served WHERE list_contains($pair, variant) "
        "GROUP BY key HAVING count(*) = 1",
        {"pair": list(variants)},
    )
    day = f'CAST("{source.day}" AS DATE)' if source.day else "CAST(NULL AS DATE)"
    values = "".join(f', CAST(r."{name}" AS DOUBLE) AS "{name}"' for name in columns)
    try:
        connection.execute(
            f"CREATE TABLE user_days AS SELECT u.user_id, u.variant, {day} AS day{values} FROM {table} r "
            f'JOIN units u ON hash(CAST(r."{source.unit}" AS VARCHAR)) = u.key '
            f'AND CAST(r."{source.variant}" AS VARCHAR) = u.variant'
        )
    except duckdb.ConversionException as error:
        raise DataError(f"{data}: {str(error).splitlines()[0]}; metrics need numbers, days need dates") from None
    bad = ", ".join(f'count(*) FILTER ("{name}" IS NULL OR NOT isfinite("{name}"))' for name in columns)
    for name, count in zip(columns, connection.execute(f"SELECT {bad} FROM user_days").fetchall()[0], strict=True):
        if count:
            raise DataError(f"{data}: {count:,} values of {name} are missing or not finite; fill or drop them")
    repeated = _repeated(connection)
    if repeated:
        connection.execute("CREATE OR REPLACE TABLE user_days AS SELECT DISTINCT ON (user_id, day) * FROM user_days")
    found = {"columns": columns, "by_day": source.day is not None, "nameless": nameless, "repeated": repeated}
    return Units(connection, has_before=bool(covariates), table_rows=rows, **found)


def _repeated(connection: duckdb.DuckDBPyConnection) -> int:
    """Rows beyond the first of a unit and day."""
    span = "SELECT coalesce(datediff('day', min(day), max(day)) + 1, 1) FROM user_days"
    units, days = connection.execute(f"SELECT coalesce(max(user_id) + 1, 0), ({span}) FROM user_days").fetchall()[0]
    if units * days > MAX_CELLS:
        raise DataError(f"{units:,} units over {days:,} days: analyse a shorter time")
    number = "coalesce(datediff('day', (SELECT min(day) FROM user_days), day), 0)"
    keys = connection.execute(f"SELECT user_id * CAST({days} AS BIGINT) + {number} AS k FROM user_days").fetchnumpy()[
        "k"
    ]
    seen = np.zeros(units * days, bool)
    seen[keys] = True
    return len(keys) - int(seen.sum())


def _moments(values: np.ndarray, names: list[str]) -> Aggregates:
    """Count, means, variances and covariances of a table (n, columns)."""
    n = len(values)
    if not n:
        return Aggregates(count_=0)
    means = values.mean(axis=0)
    centred = values - means
    spread = centred.T @ centred / max(n - 1, 1)
    pairs = {
        tuple(sorted((a, b))): float(spread[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if i < j
    }
    return Aggregates(
        count_=n,
        mean_=dict(zip(names, means.tolist(), strict=True)),
        var_=dict(zip(names, np.diag(spread).tolist(), strict=True)),
        cov_=pairs,
    )


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
