"""Off-policy estimates from the service's own logs: drawn orders with propensities, clicks, and the orders to judge.

The orders to judge are a Parquet file with `request_id` and `item_ids`, or what a shadow variant logged beside the
answers: all candidates of the same requests, in the order the shadow would have given.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from monitoring.counterfactual import Draws, estimate
from monitoring.tables import scan
from uniscale.errors import DataError
from uniscale.logs import CLICK, LogDescription
from uniscale.serving_log import SHADOWS

ASSUMPTIONS = (
    "a click depends on the items at and above its position, not on those below",
    "the requests judged are those that were logged: other orders bring no other requests",
)


def judge_orders(
    serving_log: Path,
    logs: Path,
    orders: Path | None = None,
    shadow: str | None = None,
    variant: str | None = None,
    positions: int = 3,
    clip: float = np.inf,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Clicks in the first positions that other orders of the same requests would have had (`counterfactual.estimate`).

    Args:
        serving_log: folder of `uniscale.serving_log` rows, written with exploration.
        logs: log folder whose events refer to the served requests.
        orders: Parquet file with `request_id` and `item_ids`, best first; or name a shadow instead.
        shadow: variant whose logged orders are judged.
        variant: the variant whose answers are used; all of them unless given.
        positions: first positions that count; answers and orders with fewer are left out.
        clip: greatest weight.
        alpha: intervals are 1 - alpha.

    Raises:
        DataError: a log is missing, no answer has propensities, one is not in (0, 1], or no request has an order.
    """
    if (orders is None) == (shadow is None):
        raise DataError("give the orders to judge: a Parquet file with request_id and item_ids, or a shadow's name")
    served = scan(Path(serving_log), "serving log")
    description = LogDescription.load(logs)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        answered, drawn = connection.execute(
            f"SELECT count(*), count(propensities) FILTER (fallback IS NULL) FROM {served} "
            "WHERE variant = coalesce($variant, variant)",
            {"variant": variant},
        ).fetchall()[0]
        if not drawn:
            who = "no answer" if variant is None else f"no answer of {variant}"
            raise DataError(
                f"{serving_log}: {who} among {answered:,} has propensities, so nothing can be said about other orders; "
                "serve with serving.exploration.policy plackett_luce or epsilon_greedy"
            )
        connection.execute(
            f"CREATE TABLE drawn AS SELECT DISTINCT ON (s.request_id) s.request_id, s.user_id, "
            f"s.item_ids[1:{positions}] AS shown, o.item_ids[1:{positions}] AS wanted, "
            f"s.propensities[1:{positions}] AS propensity "
            f"FROM {served} s JOIN ({_orders(Path(serving_log), orders, shadow)}) o USING (request_id) "
            "WHERE s.variant = coalesce($variant, s.variant) AND s.propensities IS NOT NULL AND s.fallback IS NULL "
            f"AND len(s.item_ids) >= {positions} AND len(o.item_ids) >= {positions} ORDER BY s.request_id, s.served_at",
            {"variant": variant},
        )
        rows = connection.execute(
            f"WITH clicked AS (SELECT DISTINCT request_id, item_id FROM {scan(Path(logs) / 'events', 'events')} "
            "WHERE type = $click) "
            "SELECT hash(user_id) AS user, list_transform(shown, lambda i: hash(i)) AS shown, "
            "list_transform(wanted, lambda i: hash(i)) AS wanted, propensity, "
            "list_transform(shown, lambda i: CAST(list_contains(coalesce(items, []), i) AS DOUBLE)) AS click "
            "FROM drawn LEFT JOIN (SELECT request_id, list(item_id) AS items FROM clicked GROUP BY 1) "
            "USING (request_id) ORDER BY request_id",
            {"click": description.tasks.get("click", CLICK)},
        ).fetchnumpy()
    if len(rows["user"]) < 2:
        raise DataError(
            f"{len(rows['user'])} drawn answers have an order to judge with {positions} positions: the orders must be "
            "those of the served requests, and at least as long"
        )
    propensity = _table(rows["propensity"], np.float64)
    wrong = ~((propensity > 0) & (propensity <= 1))
    if wrong.any():
        raise DataError(
            f"{serving_log}: {int(wrong.sum()):,} propensities are not in (0, 1], e.g. {propensity[wrong][0]}"
        )
    draws = Draws(
        user=np.unique(rows["user"], return_inverse=True)[1],
        shown=_table(rows["shown"], np.uint64).view(np.int64),
        wanted=_table(rows["wanted"], np.uint64).view(np.int64),
        propensity=propensity,
        click=_table(rows["click"], np.float64),
    )
    found = estimate(draws, alpha, clip)
    return found | {"answers": answered, "with_propensities": drawn, "assumptions": list(ASSUMPTIONS)}


def _table(lists: Any, kind: Any) -> NDArray[Any]:
    """Equally long lists (n,) as an array (n, k)."""
    return np.stack(list(lists)).astype(kind)


def _orders(serving_log: Path, orders: Path | None, shadow: str | None) -> str:
    if orders is None:
        name = str(shadow).replace("'", "''")
        return f"SELECT request_id, item_ids FROM {scan(serving_log / SHADOWS, 'shadow log')} WHERE variant = '{name}'"
    if not Path(orders).is_file():
        raise DataError(f"no file {orders}: it should hold request_id and item_ids, best first")
    return f"SELECT request_id, item_ids FROM read_parquet('{str(orders).replace(chr(39), chr(39) * 2)}')"


def in_words(found: Mapping[str, Any]) -> str:
    """A result of `judge_orders`, a line a fact."""
    support = ", ".join(f"{effective:,.0f}" for effective in found["effective"])
    clip = "no weight is clipped"
    if found["clip"] is not None:
        clip = f"weights above {found['clip']:g} are clipped, {found['clipped']:.1%} of them: biased towards less"
    lines = [
        f"{found['requests']:,} requests of {found['users']:,} users, first {found['positions']} positions",
        f"effective requests by position: {support}; {clip}",
        f"logged: {_span(found['logged'])} clicks a request",
    ]
    if found["withheld"]:
        return "\n".join([*lines, f"withheld: {found['withheld']}"])
    for name, label in (("ips", "IPS"), ("snips", "SNIPS"), ("dr", "DR")):
        moved, (low, high) = found[name]["difference"], found[name]["difference_interval"]
        lines.append(f"{label}: {_span(found[name])}, against the log {moved:+.4f} ({low:+.4f} to {high:+.4f})")
    return "\n".join([*lines, *(f"assumed: {text}" for text in found["assumptions"])])


def _span(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.4f} ({found['interval'][0]:.4f} to {found['interval'][1]:.4f})"
