"""Checks of who acts and when: bots, who ask far more often than people; clocks that differ; a lift that wears off.

All only warn: the first names users to leave out, the last says that the lift of the whole period is not the lift to
expect later.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from monitoring.definition import Definition
from monitoring.fixed_horizon import compare
from monitoring.outcomes import Look, Outcomes
from monitoring.tables import scan

BOT_SIGMAS, BOT_REQUESTS = 8.0, 50  # robust standard deviations on the log scale, and requests on an active day
NOVELTY_P, NOVELTY_DAYS = 0.01, 5
CLOCK_SECONDS, CLOCK_SHARE = 5, 0.01


def find_bots(outcomes: Outcomes) -> dict[str, Any]:
    """Users whose requests on an active day are far out: `users`, `share` of the requests, and the three greatest."""
    found = outcomes.connection.execute(
        "SELECT user_id, sum(requests) AS requests, sum(requests) / count(DISTINCT day) AS a_day "
        "FROM user_days GROUP BY 1"
    ).fetchnumpy()
    a_day, total = np.log(np.asarray(found["a_day"], float)), np.asarray(found["requests"], float)
    if not len(a_day):
        return {"users": 0, "share": 0.0, "names": []}
    middle = np.median(a_day)
    spread = max(1.4826 * float(np.median(np.abs(a_day - middle))), 0.25)
    far = (a_day > middle + BOT_SIGMAS * spread) & (a_day > math.log(BOT_REQUESTS))
    order = np.argsort(-a_day)[: min(3, int(far.sum()))]
    share = float(total[far].sum() / total.sum())
    return {"users": int(far.sum()), "share": share, "names": [str(found["user_id"][n]) for n in order]}


def clock_skew(outcomes: Outcomes, logs: Path) -> str | None:
    """A sentence where events come before the request that they answer, which only clocks that differ can do."""
    rows, early = outcomes.rows(
        f"SELECT count(*), count(*) FILTER (e.ts < a.ts - INTERVAL {CLOCK_SECONDS} SECOND) "
        f"FROM {scan(Path(logs) / 'events', 'events')} e JOIN asked a USING (request_id)"
    )[0]
    if not rows or early / rows <= CLOCK_SHARE:
        return None
    return f"{early:,} of {rows:,} events come before their request: the clocks of service and events differ."


def wears_off(log_ratios: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """Slope of daily log ratios by weighted least squares, and its two-sided p-value.

    Days share users, so their errors are alike; what is alike cancels in a slope, and the test errs on the safe side.
    """
    weight, day = 1 / variances, np.arange(len(log_ratios), dtype=float)
    centre = (weight * day).sum() / weight.sum()
    information = (weight * (day - centre) ** 2).sum()
    slope = float((weight * (day - centre) * log_ratios).sum() / information)
    return slope, float(2 * norm.sf(abs(slope) * math.sqrt(information)))


def novelty(config: Definition, looks: Sequence[Look], pair: tuple[str, str]) -> str | None:
    """A sentence where the primary metric's daily lift shrinks towards zero from one side, None where it does not."""
    metric = config.metric(config.primary)
    if metric.quantile is not None or metric.window_days is not None or len(looks) < NOVELTY_DAYS:
        return None
    ratios, variances = [], []
    for look in looks:
        if not set(pair) <= set(look.alone):
            continue
        arms = look.alone[pair[0]], look.alone[pair[1]]
        found = compare(metric, *arms, alpha=config.alpha, covariates=False)
        if found["log_ratio"] is not None:
            ratios.append(found["log_ratio"])
            variances.append(found["log_variance"])
    if len(ratios) < NOVELTY_DAYS:
        return None
    slope, p = wears_off(np.array(ratios), np.array(variances))
    half = len(ratios) // 2
    first, last = (math.expm1(float(np.mean(part))) for part in (ratios[:half], ratios[-half:]))
    if p >= NOVELTY_P or slope * first > 0 or abs(last) >= abs(first):
        return None
    return (
        f"{metric.label} {first:+.1%} in the first {half} days and {last:+.1%} in the last {half} (trend p = {p:.2g}): "
        "a novelty effect; run longer, and judge by the later days."
    )
