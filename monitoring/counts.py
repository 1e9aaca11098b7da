"""An experiment of which only totals an arm are known: trials (impressions) and successes (clicks).

The 0/1 outcomes of n trials with c successes have mean c / n and sample variance n / (n − 1) · c/n (1 − c/n); from
there on it is the comparison of `fixed_horizon`, with the impression in the user's place. That is right only where
impressions are independent, so it is offered for totals alone and labelled, never for logs that name users.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from tea_tasting.aggr import Aggregates

from monitoring.definition import CountsSource, Definition
from monitoring.fixed_horizon import compare
from monitoring.health import Check
from monitoring.scorecard import empty_row, watched
from monitoring.units import require_columns, scan_table
from uniscale.errors import DataError


@dataclass(frozen=True)
class Counted:
    """Trials an arm, the scorecard's rows, and what was noticed."""

    trials: dict[str, int]
    rows: list[dict[str, Any]]
    checks: list[Check]


def count_rows(
    connection: duckdb.DuckDBPyConnection,
    definition: Definition,
    source: CountsSource,
    data: Path,
    pair: tuple[str, str],
) -> Counted:
    """Compare two arms by their totals; every metric is its numerator over the trials.

    Raises:
        DataError: no such file or column, no row, an arm listed twice, or more successes than trials.
    """
    table, names = scan_table(data), list(dict.fromkeys(metric.numerator for metric in definition.means))
    require_columns(connection, table, data, [source.arm, source.trials, *source.where, *names])
    where = " AND ".join([f'CAST("{name}" AS VARCHAR) = ?' for name in source.where] or ["TRUE"])
    chosen = ", ".join(f'"{name}"' for name in (source.trials, *names))
    found = connection.execute(
        f'SELECT CAST("{source.arm}" AS VARCHAR), {chosen} FROM {table} WHERE {where}', list(source.where.values())
    ).fetchall()
    if not found:
        raise DataError(f"{data}: no row where {source.where}")
    arms: dict[str, tuple[int, dict[str, int]]] = {}
    for arm, trials, *successes in found:
        if arm in arms:
            raise DataError(f"{data}: arm {arm!r} has more than one row; narrow `where` to one experiment")
        totals = dict(zip(names, successes, strict=True))
        if trials is None or any(value is None or not 0 <= value <= trials for value in successes):
            raise DataError(
                f"{data}: arm {arm!r} has {totals} in {trials} {source.trials}: not between 0 and all of them"
            )
        arms[arm] = (trials, totals)
    checks = []
    if others := [arm for arm in arms if arm not in definition.weights]:
        text = f"{len(others)} arms that the experiment does not name are left out: {', '.join(others)}."
        checks.append(Check("other variants", "warn", text))
    trials = {name: arms[name][0] for name in pair if name in arms}
    return Counted(trials, [_row(definition, arms, pair, metric) for metric in definition.means], checks)


def _row(
    definition: Definition, arms: dict[str, tuple[int, dict[str, int]]], pair: tuple[str, str], metric: Any
) -> dict:
    row = empty_row(definition, metric)
    if not set(pair) <= set(arms) or min(arms[name][0] for name in pair) == 0:
        reason = "a variant has no trials"
        return row | {"withheld": reason, "always_valid_withheld": reason}
    control, treatment = (_bernoulli(metric.numerator, arms[name][1][metric.numerator], arms[name][0]) for name in pair)
    settings = {"alpha": definition.alpha, "power": definition.power, "target": definition.mde_target}
    found = compare(metric, control, treatment, covariates=False, **settings)
    conversions = [float(arms[name][1][metric.numerator]) for name in pair]
    return row | found | watched(definition, found, conversions)


def _bernoulli(name: str, successes: int, trials: int) -> Aggregates:
    mean = successes / trials
    variance = mean * (1 - mean) * trials / (trials - 1) if trials > 1 else 0.0
    return Aggregates(count_=trials, mean_={name: mean}, var_={name: variance})
