"""Latency of the two variants: clustered quantiles, and the row of the p99 guardrail."""

from dataclasses import asdict
from typing import Any

import numpy as np

from monitoring.metrics import LATENCY
from monitoring.outcomes import Outcomes
from monitoring.quantiles import clustered_quantile, compare_quantiles
from monitoring.scorecard import empty_row, watched
from monitoring.sequential import BURN_IN
from uniscale.sections import ExperimentConfig

QUANTILES = (0.5, 0.9, 0.99)


def latency(config: ExperimentConfig, outcomes: Outcomes, control: str, treatment: str) -> dict[str, Any]:
    """`row`, the p99's row of the scorecard, and `quantiles`, the p50, p90 and p99 of each variant in milliseconds."""
    row, quantiles, p99 = empty_row(config, LATENCY), [], {}
    for role, name in (("control", control), ("treatment", treatment)):
        table = outcomes.connection.execute(
            "SELECT hash(user_id) AS user, latency_ms FROM asked WHERE variant = ? AND latency_ms IS NOT NULL", [name]
        ).fetchnumpy()
        values, users = np.asarray(table["latency_ms"], dtype=np.float64), np.asarray(table["user"])
        if not len(values):
            row["withheld"] = f"no latency was logged for {name}"
            continue
        for q in QUANTILES:
            found = clustered_quantile(values, users, q, config.alpha)
            quantiles.append({"variant": role, "quantile": q, **asdict(found)})
        p99[role] = found
        row[role] = found.estimate
    if len(p99) < 2:
        row["always_valid_withheld"] = row["withheld"]
        return {"row": row, "quantiles": quantiles}
    lift = compare_quantiles(p99["control"], p99["treatment"], config.alpha)
    if lift is None:
        row["withheld"] = "too few requests or users to bound the 99th percentile from above"
        row["always_valid_withheld"] = row["withheld"]
    else:
        row |= {"lift": lift.lift, "interval": [lift.lower, lift.upper], "p": lift.p}
        slow = [float(found.beyond) for found in p99.values()]
        row |= watched(config, {"withheld": None, **asdict(lift)}, slow)
        if row["always_valid_withheld"]:
            row["always_valid_withheld"] = (
                f"burn-in: {int(min(slow))} requests beyond the p99 in a variant, {BURN_IN} needed"
            )
    return {"row": row, "quantiles": quantiles}
