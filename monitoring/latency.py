"""Latency of the two variants: clustered quantiles, and the row of the quantile that the experiment watches."""

from dataclasses import asdict
from typing import Any

import numpy as np

from monitoring.definition import Definition
from monitoring.metrics import Metric
from monitoring.outcomes import Outcomes
from monitoring.quantiles import clustered_quantile, compare_quantiles
from monitoring.scorecard import empty_row, watched
from monitoring.sequential import BURN_IN

BESIDE = (0.5, 0.9)  # quantiles shown beside the one under watch


def latency(config: Definition, metric: Metric, outcomes: Outcomes, control: str, treatment: str) -> dict[str, Any]:
    """`row`, the metric's row of the scorecard, and `quantiles`, the p50, p90 and its own of each variant in ms."""
    assert metric.quantile is not None, metric
    row, quantiles, tails = empty_row(config, metric), [], {}
    for role, name in (("control", control), ("treatment", treatment)):
        table = outcomes.connection.execute(
            "SELECT hash(user_id) AS user, latency_ms FROM asked WHERE variant = ? AND latency_ms IS NOT NULL", [name]
        ).fetchnumpy()
        values, users = np.asarray(table["latency_ms"], dtype=np.float64), np.asarray(table["user"])
        if not len(values):
            row["withheld"] = f"no latency was logged for {name}"
            continue
        for q in (*BESIDE, metric.quantile):
            found = clustered_quantile(values, users, q, config.alpha)
            quantiles.append({"variant": role, "quantile": q, **asdict(found)})
        tails[role] = found
        row[role] = found.estimate
    if len(tails) < 2:
        row["always_valid_withheld"] = row["withheld"]
        return {"row": row, "quantiles": quantiles}
    lift = compare_quantiles(tails["control"], tails["treatment"], config.alpha)
    if lift is None:
        row["withheld"] = "too few requests or users to bound this quantile from above"
        row["always_valid_withheld"] = row["withheld"]
    else:
        row |= {"lift": lift.lift, "interval": [lift.lower, lift.upper], "p": lift.p}
        slow = [float(found.beyond) for found in tails.values()]
        row |= watched(config, {"withheld": None, **asdict(lift)}, slow)
        if row["always_valid_withheld"]:
            row["always_valid_withheld"] = (
                f"burn-in: {int(min(slow))} requests beyond the quantile in a variant, {BURN_IN} needed"
            )
    return {"row": row, "quantiles": quantiles}
