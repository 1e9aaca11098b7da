"""An experiment whose data are one table: a row a randomised unit, or a row a unit and day.

One pass over the table gives each unit's sums and the days it was seen on; where there are days, a second one keeps the
columns watched by day, in order of the day. Units get dense numbers, variant by variant, so that the looks sum them by
place and an arm is a slice; scorecard and checks are the code of the logs.
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
from monitoring.tables import DuckDB
from uniscale.config import nearest
from uniscale.errors import DataError

MAX_DAYS = 3660  # a bit each and unit, while repeated rows are looked for


@dataclass
class Units(Outcomes):
    """Tables `served` (a row a unit and variant as found), `users` (sums of the units analysed) and `user_days`."""

    table_rows: int = 0
    nameless: int = 0  # rows without a unit, a variant or, where there are days, a day
    repeated: int = 0  # rows beyond the first of a unit (and day)

    def users(
        self,
        until: str | None = None,
        scenario: str | None = None,
        new: bool | None = None,
        window: int | None = None,
        since: str | None = None,
    ) -> str:
        """Name of the table with one row a unit."""
        chosen = {"until": until, "scenario": scenario, "new": new, "window": window, "since": since}
        assert set(chosen.values()) == {None}, f"a table of units has no requests to choose from: {chosen}"
        return "users"

    def users_by_variant(self) -> dict[str, int]:
        """Units analysed of each variant."""
        return dict(self.rows("SELECT variant, count(*) FROM users GROUP BY 1 ORDER BY 1"))

    def looks(self, metrics: tuple[Metric, ...], days: list[str], alone: bool) -> Iterator[Look]:
        """What the end of each day shows, from sums that are carried on from the day before."""
        names = _columns(metrics)
        chosen = ", ".join(f'"{name}"' for name in names)
        counts = self.users_by_variant()
        edges = np.concatenate([[0], np.cumsum(list(counts.values()), dtype=np.int64)])
        arms = {variant: slice(*edges[n : n + 2]) for n, variant in enumerate(counts)}
        sums, seen = np.zeros((edges[-1], len(names))), np.zeros(edges[-1], bool)
        for day in days:
            found = self.connection.execute(
                f"SELECT place, {chosen} FROM user_days WHERE day = CAST($day AS DATE)", {"day": day}
            ).fetchnumpy()
            that_day, here = np.zeros_like(sums), np.zeros_like(seen)
            that_day[found["place"]], here[found["place"]] = np.stack([found[name] for name in names], axis=1), True
            sums += that_day
            seen |= here
            until = _by_arm(arms, sums, seen, names)
            totals = {v: {n: m.mean(n) * m.count() for n in names} for v, m in until.items()}
            yield Look(day, until, totals, _by_arm(arms, that_day, here, names) if alone else {})


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
    table, columns = scan_table(data), _columns(definition.means)
    require_columns(
        connection, table, data, [source.unit, source.variant, *([source.day] if source.day else []), *columns]
    )
    key, arm = f'hash(CAST("{source.unit}" AS VARCHAR))', f'CAST("{source.variant}" AS VARCHAR)'
    unit = "NULL" if definition.salt is None else f'CAST("{source.unit}" AS VARCHAR)'  # only the assignment needs it
    day = f'CAST("{source.day}" AS DATE)' if source.day else "DATE '1970-01-01'"
    values = "".join(f', CAST("{name}" AS DOUBLE) AS "{name}"' for name in columns)
    named = " AND ".join(f'"{name}" IS NOT NULL' for name in (source.unit, source.variant, source.day) if name)
    rows = f"SELECT {key} AS key, {unit} AS unit, {arm} AS variant, {day} AS day{values} FROM {table} WHERE {named}"
    try:
        total, first, last = connection.execute(f"SELECT count(*), min({day}), max({day}) FROM {table}").fetchall()[0]
        if first is not None and (last - first).days > MAX_DAYS:
            raise DataError(f"{data}: {source.day} runs from {first} to {last}; at most {MAX_DAYS:,} days are analysed")
        span = (first, 0 if first is None else (last - first).days + 1)
        repeated = _sum_units(connection, rows, columns, variants, span)
        nameless = total - int(connection.execute("SELECT coalesce(sum(times), 0) FROM served").fetchall()[0][0])
        if repeated:
            connection.execute(f"CREATE TABLE once AS SELECT DISTINCT ON (key, variant, day) * FROM ({rows})")
            rows = "SELECT * FROM once"
            _sum_units(connection, rows, columns, variants, span)
        _refuse_unusable(connection, rows, columns, data)
        if source.day:
            watched = _columns(tuple(definition.metric(n) for n in {definition.primary: 0, **definition.guardrails}))
            kept = "".join(f', r."{name}"' for name in watched)
            connection.execute(
                f"CREATE TABLE user_days AS SELECT u.rowid AS place, r.day{kept} FROM ({rows}) r "
                "JOIN users u USING (key, variant) ORDER BY r.day"
            )
        else:
            connection.execute("CREATE VIEW user_days AS SELECT rowid AS place, CAST(NULL AS DATE) AS day FROM users")
    except duckdb.ConversionException as error:
        raise DataError(f"{data}: {str(error).splitlines()[0]}; metrics need numbers, days need dates") from None
    has_before = any(isinstance(metric.covariate, str) for metric in definition.means)
    return Units(DuckDB(connection), has_before, table_rows=total, nameless=nameless, repeated=repeated)


def _columns(metrics: tuple[Metric, ...]) -> list[str]:
    """Columns of the table that the metrics need, covariates and burn-in counts with them."""
    given = [c for m in metrics for c in (*m.columns, m.counts, m.covariate if isinstance(m.covariate, str) else "")]
    return list(dict.fromkeys(filter(None, given)))


def _sum_units(
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    columns: list[str],
    variants: tuple[str, str],
    span: tuple[object, int],
) -> int:
    """Tables `served` and `users`; gives the rows beyond the first of an analysed unit and day."""
    # A missing value makes the sum NaN as an infinite one does, so both are found in the sums.
    sums = "".join(f', sum(coalesce("{name}", \'nan\'::DOUBLE)) AS "{name}"' for name in columns)
    first, days = span
    number = "CAST(day - $first AS INTEGER)"
    seen = f"bit_or(1::UBIGINT << {number})" if days <= 64 else f"bitstring_agg({number}, 0, {days - 1})"
    connection.execute(
        "CREATE OR REPLACE TABLE served AS SELECT coalesce(any_value(unit), CAST(key AS VARCHAR)) AS user_id, key, "
        f"variant, count(*) AS times, bit_count({seen}) AS days{sums} FROM ({rows}) GROUP BY key, variant",
        {"first": first},
    )
    connection.execute(
        "CREATE OR REPLACE TABLE crossed AS SELECT key FROM served WHERE list_contains($pair, variant) "
        "GROUP BY key HAVING count(*) > 1",
        {"pair": list(variants)},
    )
    names = "".join(f', "{name}"' for name in columns)
    arm = f"SELECT key, variant, times - days AS repeated{names} FROM served ANTI JOIN crossed USING (key)"
    ordered = " UNION ALL ".join(f"{arm} WHERE variant = ${name}" for name in ("first", "second"))  # rowid: the number
    connection.execute(
        f"CREATE OR REPLACE TABLE users AS {ordered}", dict(zip(("first", "second"), sorted(variants), strict=True))
    )
    return int(connection.execute("SELECT coalesce(sum(repeated), 0) FROM users").fetchall()[0][0])


def _refuse_unusable(connection: duckdb.DuckDBPyConnection, rows: str, columns: list[str], data: Path) -> None:
    """DataError for the first column with a value that is missing or not finite."""
    unusable = " OR ".join(f'NOT isfinite("{name}")' for name in columns)
    if not connection.execute(f"SELECT count(*) FROM users WHERE {unusable}").fetchall()[0][0]:
        return
    bad = ", ".join(f'count(*) FILTER ("{name}" IS NULL OR NOT isfinite("{name}"))' for name in columns)
    counts = connection.execute(f"SELECT {bad} FROM ({rows}) SEMI JOIN users USING (key, variant)").fetchall()[0]
    name, count = next((name, count) for name, count in zip(columns, counts, strict=True) if count)
    raise DataError(f"{data}: {count:,} values of {name} are missing or not finite; fill or drop them")


def _by_arm(arms: dict[str, slice], sums: np.ndarray, seen: np.ndarray, names: list[str]) -> dict[str, Aggregates]:
    return {v: _moments(sums[arm], int(seen[arm].sum()), names) for v, arm in arms.items() if seen[arm].any()}


def _moments(sums: np.ndarray, n: int, names: list[str]) -> Aggregates:
    """Count, means, variances and covariances of n units, where the others of the arm (units, columns) are all zero."""
    means = sums.sum(axis=0) / n
    spread = (sums.T @ sums - n * np.outer(means, means)) / max(n - 1, 1)
    pairs = {
        tuple(sorted((a, b))): float(spread[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if i < j
    }
    return Aggregates(
        count_=n,
        mean_=dict(zip(names, means.tolist(), strict=True)),
        var_=dict(zip(names, np.maximum(np.diag(spread), 0.0).tolist(), strict=True)),
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
