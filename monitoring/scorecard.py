"""The scorecard of an experiment: one row a metric, the cumulative lift by day, and the cuts by users and scenario.

A row holds the fixed-horizon lift (CUPED where a pre-period is known), the always-valid interval on its log ratio, and
the reason for whatever is withheld.
"""

from collections.abc import Sequence
from typing import Any

from monitoring.definition import Definition
from monitoring.fixed_horizon import adjust, aggregate, compare
from monitoring.metrics import Metric
from monitoring.outcomes import Look, Outcomes
from monitoring.sequential import BURN_IN, always_valid

MIN_CUT_USERS = 50  # users a variant below which a cut is named but not compared


def scorecard(config: Definition, outcomes: Outcomes, control: str, treatment: str, days: int) -> list[dict[str, Any]]:
    """One row a mean or ratio of the experiment; `days` is the number of days with data."""
    rows: dict[str, dict[str, Any]] = {}
    for window in {metric.window_days: None for metric in config.means}:
        chosen = tuple(metric for metric in config.means if metric.window_days == window)
        table = outcomes.users(window=window)
        arms = aggregate(outcomes.table(table), chosen, outcomes.has_before)
        if {control, treatment} <= set(arms):
            totals = outcomes.totals(table, chosen)
            found = _rows(config, chosen, arms, totals, (control, treatment), outcomes.has_before, days)
            rows |= {row["name"]: row for row in found}
            continue
        reason = "a variant has no users" if window is None else f"no user of a variant has {window} days behind them"
        withheld = {"withheld": reason, "always_valid_withheld": reason}
        rows |= {metric.name: empty_row(config, metric) | withheld for metric in chosen}
    return [rows[metric.name] for metric in config.means]


def _rows(
    config: Definition,
    metrics: tuple[Metric, ...],
    arms: dict[str, Any],
    totals: dict[str, dict[str, float]],
    pair: tuple[str, str],
    has_before: bool,
    days: int,
) -> list[dict[str, Any]]:
    (control, treatment), rows = pair, []
    plain = {"alpha": config.alpha, "power": config.power, "target": config.mde_target}
    for metric in metrics:
        row = empty_row(config, metric)
        if days < metric.minimum_days:
            row["withheld"] = f"needs {metric.minimum_days} days of logs, there are {days}"
            row["always_valid_withheld"] = row["withheld"]
            rows.append(row)
            continue
        found = compare(metric, arms[control], arms[treatment], covariates=has_before, **plain)
        unadjusted = (
            compare(metric, arms[control], arms[treatment], alpha=config.alpha, covariates=False)
            if found["cuped"]
            else None
        )
        row |= found
        if unadjusted and unadjusted["log_variance"]:
            row["variance_reduction"] = 1 - found["log_variance"] / unadjusted["log_variance"]
            row["unadjusted"] = {key: unadjusted[key] for key in ("lift", "interval", "p")}
        row |= watched(
            config, found, [totals[name][metric.counts or metric.numerator] for name in (control, treatment)]
        )
        rows.append(row)
    return rows


def empty_row(config: Definition, metric: Metric) -> dict[str, Any]:
    """A row with every key and no number yet."""
    role = (
        "primary" if metric.name == config.primary else "guardrail" if metric.name in config.guardrails else "secondary"
    )
    numbers = ("control", "treatment", "lift", "interval", "p", "p_adjusted", "mde", "users_needed", "always_valid")
    return {
        "name": metric.name,
        "label": metric.label,
        "role": role,
        "unit": metric.unit,
        "better": metric.better,
        "meaning": metric.meaning,
        **dict.fromkeys(numbers),
        "always_valid_withheld": None,
        "cuped": False,
        "variance_reduction": None,
        "unadjusted": None,
        "withheld": None,
    }


def watched(config: Definition, found: dict[str, Any], conversions: list[float]) -> dict[str, Any]:
    """The always-valid side of a row, withheld during the burn-in."""
    if found["withheld"] or found["log_ratio"] is None:
        return {"always_valid_withheld": found["withheld"] or "a variant is at zero, so the ratio has no logarithm"}
    if min(conversions) < BURN_IN:
        reason = f"burn-in: {int(min(conversions))} conversions in a variant, {BURN_IN} needed"
        return {"always_valid_withheld": reason}
    interval = always_valid(found["log_ratio"], found["log_variance"], config.alpha, config.mde_target)
    return {"always_valid": {"interval": [interval.lower, interval.upper], "p": interval.p}}


def adjust_secondary(config: Definition, rows: list[dict[str, Any]]) -> None:
    """The primary metric is one test; the others share a false discovery rate."""
    others = {row["name"]: row["p"] for row in rows if row["p"] is not None and row["role"] != "primary"}
    adjusted = adjust(others, config.alpha)
    for row in rows:
        row["p_adjusted"] = row["p"] if row["role"] == "primary" else adjusted.get(row["name"])


def watched_by_day(config: Definition) -> tuple[Metric, ...]:
    """The primary metric and the guardrails, those of them that are means or ratios."""
    names = {config.primary, *config.guardrails}
    return tuple(m for m in config.means if m.name in names and m.window_days is None)


def by_day(config: Definition, looks: Sequence[Look], pair: tuple[str, str], covariates: bool) -> list[dict[str, Any]]:
    """Cumulative lift up to each day, of what is watched by day."""
    (control, treatment), points = pair, []
    for number, look in enumerate(looks, start=1):
        if not set(pair) <= set(look.until):
            continue
        for metric in watched_by_day(config):
            if number < metric.minimum_days:
                continue
            arms = look.until[control], look.until[treatment]
            found = compare(metric, *arms, alpha=config.alpha, covariates=covariates)
            conversions = [look.totals[name][metric.counts or metric.numerator] for name in pair]
            kept = {key: found[key] for key in ("lift", "interval", "p", "withheld")}
            points.append(
                {"day": look.day, "metric": metric.name, **kept, "always_valid": None}
                | watched(config, found, conversions)
            )
    return points


def cuts(config: Definition, outcomes: Outcomes, control: str, treatment: str) -> dict[str, Any]:
    """Lift of the primary metric among new and returning users and in each scenario: exploratory, adjusted together."""
    metric = config.metric(config.primary)
    if metric.quantile is not None or metric.window_days is not None:
        reason = "cuts need a metric that is a mean or a ratio over the whole experiment"
        return {"metric": metric.name, "rows": [], "withheld": reason}
    scenarios = [s for (s,) in outcomes.rows("SELECT DISTINCT unnest(scenario) AS s FROM requests ORDER BY s")]
    wanted: list[tuple[str, str, dict[str, Any]]] = [("scenario", s, {"scenario": s}) for s in scenarios]
    if outcomes.has_before:
        wanted = [("users", "new", {"new": True}), ("users", "returning", {"new": False}), *wanted]
    rows = []
    for kind, name, chosen in wanted:
        arms = aggregate(outcomes.table(outcomes.users(**chosen)), [metric], covariates=False)
        counts = [arms[variant].count() if variant in arms else 0 for variant in (control, treatment)]
        row: dict[str, Any] = {"cut": kind, "value": name, "users": counts, "lift": None, "interval": None, "p": None}
        if min(counts) < MIN_CUT_USERS:
            row["withheld"] = f"fewer than {MIN_CUT_USERS} users in a variant"
        else:
            found = compare(metric, arms[control], arms[treatment], alpha=config.alpha, covariates=False)
            row |= {key: found[key] for key in ("lift", "interval", "p", "withheld")}
        rows.append(row)
    adjusted = adjust({str(n): row["p"] for n, row in enumerate(rows) if row["p"] is not None}, config.alpha)
    rows = [row | {"p_adjusted": adjusted.get(str(n))} for n, row in enumerate(rows)]
    withheld = None if outcomes.has_before else "new users are told apart only with logs from before the experiment"
    return {"metric": metric.name, "rows": rows, "withheld": withheld}
