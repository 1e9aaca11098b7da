"""What each user did in an experiment, from logs alone: the serving log joined with exposures and events.

Outcomes are credited to the request they refer to, and so to its day and variant; the amount of a click is what the
advertiser was charged for it. The same SQL, run over the request log of an earlier period, gives the covariates for
CUPED: one definition of every metric.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import ibis
from tea_tasting.aggr import Aggregates

from monitoring.fixed_horizon import aggregate
from monitoring.metrics import Metric
from monitoring.tables import Engine
from uniscale.logs import LogDescription

REFORMULATION_MINUTES = 10
SUMS = ("impressions", "logged", "clicks", "orders", "gmv", "charges", "charged", "reformulated", "fallbacks")
COLUMNS = ("requests", *SUMS, "active_days", "converted")  # of the per-user table
COVARIATES = ("requests", "impressions", "clicks", "orders", "gmv", "converted", "charges", "reformulated")


@dataclass(frozen=True)
class Look:
    """One day of an experiment, by variant."""

    day: str
    until: dict[str, Aggregates]  # everything up to its end
    totals: dict[str, dict[str, float]]  # sums up to its end, for the burn-in
    alone: dict[str, Aggregates]  # that day by itself, if asked for


@dataclass
class Outcomes:
    """Tables `served` (as logged), `asked`, `requests`, `user_days` and, if asked for, `before`, made by an engine."""

    engine: Engine
    has_before: bool

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """Reads the tables."""
        return self.engine.connection

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return self.connection.execute(sql, list(parameters)).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The single value of a query."""
        return self.rows(sql, parameters)[0][0]

    def users_by_variant(self) -> dict[str, int]:
        """Users of each variant."""
        return dict(self.rows("SELECT variant, count(DISTINCT user_id) FROM user_days GROUP BY 1 ORDER BY 1"))

    def days(self) -> list[str]:
        """Days with data, ISO, oldest first."""
        return [str(day) for (day,) in self.rows("SELECT DISTINCT day FROM user_days ORDER BY 1") if day is not None]

    def table(self, name: str) -> ibis.Table:
        """A table as an ibis expression, which tea-tasting aggregates inside DuckDB."""
        return ibis.duckdb.from_connection(self.connection).table(name)

    def totals(self, table: str, metrics: tuple[Metric, ...]) -> dict[str, dict[str, float]]:
        """Sums by variant of what the metrics count, for the burn-in."""
        names = sorted({metric.counts or metric.numerator for metric in metrics})
        sums = ", ".join(f'sum("{name}")' for name in names)
        rows = self.rows(f"SELECT variant, {sums} FROM {table} GROUP BY 1")
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}

    def looks(self, metrics: tuple[Metric, ...], days: list[str], alone: bool) -> Iterator[Look]:
        """What the end of each day shows, and with `alone` each day by itself."""
        for day in days:
            table = self.users(until=day)
            until, totals = aggregate(self.table(table), metrics, self.has_before), self.totals(table, metrics)
            single = self.table(self.users(until=day, since=day)) if alone else None
            yield Look(day, until, totals, {} if single is None else aggregate(single, metrics, covariates=False))

    def users(
        self,
        until: str | None = None,
        scenario: str | None = None,
        new: bool | None = None,
        window: int | None = None,
        since: str | None = None,
    ) -> str:
        """Name of a fresh table with one row a user: variant, sums over the requests chosen, and `…_before` covariates.

        Args:
            until: last day counted, ISO; None for all.
            scenario: only requests of this scenario; None for all.
            new: True for users without activity before the experiment, False for the others; needs a pre-period.
            since: first day counted, ISO; None for all.
            window: days from a user's first request that count; users whose window is not over are left out.
        """
        source, where = (
            ("user_days", "TRUE") if scenario is None else ("requests", "list_contains(scenario, $scenario)")
        )
        count = "sum(requests)" if scenario is None else "count(*)"
        parameters: dict[str, Any] = {} if scenario is None else {"scenario": scenario}
        if until is not None:
            where, parameters["until"] = f"{where} AND day <= CAST($until AS DATE)", until
        if since is not None:
            where, parameters["since"] = f"{where} AND day >= CAST($since AS DATE)", since
        if window is not None:
            source += " JOIN (SELECT user_id, min(day) AS began FROM user_days GROUP BY user_id) USING (user_id)"
            where += " AND day < began + $window AND began + $window <= (SELECT max(day) + 1 FROM user_days)"
            parameters["window"] = window
        sums = ", ".join(f"CAST(sum({name}) AS DOUBLE) AS {name}" for name in SUMS)
        known = "FALSE" if not self.has_before else "user_id IN (SELECT user_id FROM before)"
        before = "".join(f", CAST(coalesce(b.{name}, 0) AS DOUBLE) AS {name}_before" for name in COVARIATES)
        self.engine.make(
            "users",
            f"""
            WITH acted AS (
                SELECT user_id, variant, CAST({count} AS DOUBLE) AS requests, {sums},
                    CAST(count(DISTINCT day) FILTER (day > (SELECT max(day) FROM user_days) - 30) AS DOUBLE)
                        AS active_days
                FROM {source} WHERE {where} GROUP BY user_id, variant)
            SELECT a.*, CAST(a.orders > 0 AS DOUBLE) AS converted{before if self.has_before else ""}
            FROM acted a {"LEFT JOIN before b USING (user_id)" if self.has_before else ""}
            WHERE {"TRUE" if new is None else known if not new else f"NOT ({known})"}
            """,
            parameters,
        )
        return "users"


def load_outcomes(
    engine: Engine,
    serving_log: Path,
    logs: Path,
    pre_period: Path | None,
    variants: tuple[str, str],
    since: datetime | None = None,
) -> Outcomes:
    """Build the tables of `Outcomes` by an engine.

    Users seen in both variants are left out of `requests`; repeated request, exposure and event rows count once.
    Requests before `since` are left out: the last change of the weights moved users from one variant to the other.

    Raises:
        DataError: the serving log, exposures or events are missing or lack a column.
    """
    description = LogDescription.load(logs)
    engine.connection.execute("SET TimeZone = 'UTC'")
    columns = "request_id, ts, user_id, variant, version, scenario, query, fallback, latency_ms"
    engine.make(
        "served",
        f"""
        SELECT {columns} FROM {engine.source(Path(serving_log), "serving log")}
        WHERE ts >= coalesce($since, ts)
        """,
        {"since": since},
    )
    engine.make(
        "asked",
        f"""
        SELECT {columns} FROM served
        WHERE list_contains($variants, variant)
            AND user_id NOT IN (
                SELECT user_id FROM served WHERE list_contains($variants, variant)
                GROUP BY user_id HAVING count(DISTINCT variant) > 1)
        QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY ts) = 1
        """,
        {"variants": list(variants)},
    )
    _request_table(engine, "requests", "asked", logs, description)
    engine.make(
        "user_days",
        f"SELECT user_id, variant, day, count(*) AS requests, {', '.join(f'sum({name}) AS {name}' for name in SUMS)} "
        "FROM requests GROUP BY user_id, variant, day",
    )
    if pre_period is not None:
        _covariates(engine, pre_period)
    return Outcomes(engine, pre_period is not None)


def _covariates(engine: Engine, pre_period: Path) -> None:
    description = LogDescription.load(pre_period)
    engine.make(
        "asked_before",
        f"""
        SELECT request_id, ts, user_id, '' AS variant, scenario, query, CAST(NULL AS VARCHAR) AS fallback
        FROM {engine.source(Path(pre_period) / "requests", "pre-period requests")}
        WHERE domain = $domain AND ts < (SELECT min(ts) FROM asked) AND user_id IN (SELECT user_id FROM asked)
        """,
        {"domain": description.target},
    )
    _request_table(engine, "requests_before", "asked_before", pre_period, description)
    sums = ", ".join(f"sum({name}) AS {name}" for name in COVARIATES if name not in ("requests", "converted"))
    engine.make(
        "before",
        f"SELECT user_id, count(*) AS requests, {sums}, CAST(sum(orders) > 0 AS DOUBLE) AS converted "
        "FROM requests_before GROUP BY user_id",
    )


def _request_table(engine: Engine, name: str, asked: str, logs: Path, description: LogDescription) -> None:
    click = description.tasks.get("click", next(iter(description.tasks.values())))
    engine.make(
        name,
        f"""
        WITH shown AS (
            SELECT request_id, count(DISTINCT item_id) AS impressions
            FROM {engine.source(Path(logs) / "exposures", "exposures")} SEMI JOIN {asked} USING (request_id)
            GROUP BY request_id),
        happened AS (
            SELECT DISTINCT ON (event_id) request_id, item_id, type, coalesce(amount, 0) AS amount
            FROM {engine.source(Path(logs) / "events", "events")} SEMI JOIN {asked} USING (request_id)),
        followed AS (
            SELECT request_id, count(DISTINCT item_id) FILTER (type = $click) AS clicks,
                count(*) FILTER (type = $purchase) AS orders,
                coalesce(sum(amount) FILTER (type = $purchase), 0) AS gmv,
                coalesce(sum(amount) FILTER (type = $click), 0) AS charges,
                count(*) FILTER (type = $click AND amount > 0) AS charged
            FROM happened GROUP BY request_id)
        SELECT a.request_id, a.user_id, a.variant, CAST(a.ts AS DATE) AS day, a.scenario,
            coalesce(impressions, 0) AS impressions, CAST(impressions IS NOT NULL AS INTEGER) AS logged,
            coalesce(clicks, 0) AS clicks, coalesce(orders, 0) AS orders, coalesce(gmv, 0) AS gmv,
            coalesce(charges, 0) AS charges, coalesce(charged, 0) AS charged,
            CAST(coalesce(lead(a.query) OVER w <> a.query
                AND lead(a.ts) OVER w <= a.ts + INTERVAL {REFORMULATION_MINUTES} MINUTE, FALSE) AS INTEGER)
                AS reformulated,
            CAST(fallback IS NOT NULL AS INTEGER) AS fallbacks
        FROM {asked} a LEFT JOIN shown USING (request_id) LEFT JOIN followed USING (request_id)
        WINDOW w AS (PARTITION BY a.user_id ORDER BY a.ts, a.request_id)
        """,
        {"click": click, "purchase": description.tasks.get("conversion", "")},
    )
