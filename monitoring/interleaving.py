"""Analysis of a team-draft interleaving: which ranking's items users click, within the same list.

A click is credited to the ranking that drafted the item (`uniscale.interleaving`). The preference is the treatment's
share of all credits; it is a ratio of user sums, so its error is that of the delta method, clustered by user, and ½
means that neither is preferred. It says which ranking users prefer, not by how much a metric would move: a preferred
ranking then goes into an A/B. Sources: Chapelle, Joachims, Radlinski and Yue (TOIS 2012); Radlinski et al. (CIKM 2008).
"""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from scipy.stats import norm

from monitoring.tables import scan
from uniscale.errors import DataError
from uniscale.logs import CLICK, LogDescription

MIN_CREDITS = 100  # credited clicks before the normal approximation of their share is trusted
FAIR_P = 0.001  # the draft itself is fair, so a p-value below it says that the lists were not drafted like that


def preference(control: np.ndarray, treatment: np.ndarray, alpha: float) -> dict[str, Any]:
    """The treatment's share of the credits of U users, (U,) each, with interval and p-value against one half."""
    assert len(control) == len(treatment)
    total, users = float((control + treatment).sum()), int((control + treatment > 0).sum())
    result: dict[str, Any] = {"credits": [int(control.sum()), int(treatment.sum())], "clicking_users": users}
    result |= dict.fromkeys(("share", "interval", "p"))
    if total < MIN_CREDITS or users < 2:
        return result | {"withheld": f"{total:.0f} credited clicks of {users} users, {MIN_CREDITS} are needed"}
    share = float(treatment.sum()) / total
    residual = treatment - share * (control + treatment)
    error = math.sqrt(len(control) / (len(control) - 1) * float(residual @ residual)) / total
    at_half = 0.5 * (treatment - control)  # the residual under the null
    null = math.sqrt(float(at_half @ at_half)) / total
    z = float(norm.ppf(1 - alpha / 2))
    interval = [max(share - z * error, 0.0), min(share + z * error, 1.0)]
    p = float(2 * norm.sf(abs(share - 0.5) / null)) if null else 1.0
    return result | {"share": share, "interval": interval, "p": p, "withheld": None}


def analyse_interleaving(
    lists: Path, logs: Path, treatment: str, alpha: float = 0.05, since: datetime | None = None
) -> dict[str, Any]:
    """Credit the clicks of interleaved lists.

    Args:
        lists: the serving log's folder, whose rows without teams are left out, or a Parquet file, with `request_id`,
            `user_id`, `item_ids` and `teams` (the name of the ranking that drafted each item), and maybe `ts`.
        logs: log folder whose click events refer to the lists' requests.
        treatment: the team under test; there is exactly one other.
        alpha: the interval is 1 - alpha.
        since: lists asked for earlier are left out; needs `ts`.

    Returns:
        `preference`'s keys, `requests` won by the treatment, lost and tied, the number of `days` (0 without `ts`),
        whether the draft was `fair` with the p-value of its first positions, and a `statement`.

    Raises:
        DataError: no such file, a missing column, or teams that are not two.
    """
    lists = Path(lists)
    if not lists.exists():
        raise DataError(f"no interleaved lists at {lists}: Parquet with request_id, user_id, item_ids and teams")
    quoted = str(lists).replace("'", "''")
    table = scan(lists, "interleaved lists") if lists.is_dir() else f"read_parquet('{quoted}')"
    click = LogDescription.load(logs).tasks.get("click", CLICK)
    with duckdb.connect() as connection:
        there = {name for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()}
        if missing := {"request_id", "user_id", "item_ids", "teams", *(["ts"] if since else [])} - there:
            raise DataError(f"{lists} lacks {sorted(missing)}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE TABLE drafted AS SELECT request_id, user_id, item_ids, teams, "
            f"{'CAST(ts AS DATE)' if 'ts' in there else 'NULL'} AS day FROM {table} "
            f"WHERE teams IS NOT NULL {'AND ts >= $since' if since else ''} "
            "QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY user_id) = 1",
            {"since": since} if since else {},
        )
        teams = sorted(t for (t,) in connection.execute("SELECT DISTINCT unnest(teams) FROM drafted").fetchall())
        uneven = connection.execute("SELECT count(*) FROM drafted WHERE len(teams) <> len(item_ids)").fetchall()[0][0]
        if len(teams) != 2 or treatment not in teams or uneven:
            raise DataError(
                f"{lists}: teams {teams}, {uneven:,} lists with a team too many or too few; expected {treatment!r} and "
                "one other, one team an item"
            )
        connection.execute(
            "CREATE TABLE credited AS WITH picked AS (SELECT request_id, user_id, unnest(item_ids) AS item_id, "
            "unnest(teams) AS team FROM drafted), "
            f"clicked AS (SELECT DISTINCT request_id, item_id FROM {scan(Path(logs) / 'events', 'events')} "
            "WHERE type = $click) "
            "SELECT request_id, any_value(user_id) AS user_id, "
            "count(c.item_id) FILTER (team <> $treatment) AS control, "
            "count(c.item_id) FILTER (team = $treatment) AS treatment "
            "FROM picked LEFT JOIN clicked c USING (request_id, item_id) GROUP BY request_id",
            {"click": click, "treatment": treatment},
        )
        won, lost, tied = connection.execute(
            "SELECT count(*) FILTER (treatment > control), count(*) FILTER (treatment < control), "
            "count(*) FILTER (treatment = control) FROM credited"
        ).fetchall()[0]
        users = connection.execute(
            "SELECT sum(control) AS control, sum(treatment) AS treatment FROM credited "
            "GROUP BY user_id ORDER BY user_id"
        ).fetchnumpy()
        first, n, days = connection.execute(
            "SELECT count(*) FILTER (teams[1] = $treatment), count(*), count(DISTINCT day) FROM drafted "
            "WHERE len(teams) > 0",
            {"treatment": treatment},
        ).fetchall()[0]
    fair_p = float(2 * norm.sf(abs(first - n / 2) / math.sqrt(n / 4))) if n else 1.0
    found = preference(users["control"].astype(float), users["treatment"].astype(float), alpha)
    found |= {"requests": {"won": won, "lost": lost, "tied": tied}, "treatment": treatment, "days": days}
    found |= {"fair": fair_p >= FAIR_P, "fair_p": fair_p}
    return found | {"statement": _in_words(found, alpha)}


def verdict_on(found: dict[str, Any], planned_days: int) -> dict[str, str]:
    """`verdict`, `headline` and `reason` of an experiment: before its planned end only a broken draft says anything.

    Nothing is shipped or rolled back on a preference: a preferred ranking goes into an A/B, another is stopped.
    """
    seen, (low, high) = f"{found['days']} of {planned_days} planned days", found["interval"] or (0.0, 1.0)
    if not found["fair"]:
        verdict, headline = "invalid", "The lists were not drafted fairly"
    elif found["days"] < planned_days:
        verdict, headline = "keep running", seen
    elif found["withheld"]:
        verdict, headline = "underpowered", "Too few clicks to tell"
    elif low > 0.5:
        verdict, headline = "preferred", f"{found['treatment']} goes into an A/B, which says by how much"
    elif high < 0.5:
        verdict, headline = "not preferred", f"Users prefer the other ranking to {found['treatment']}"
    else:
        verdict, headline = "no preference", "Users prefer neither ranking"
    return {"verdict": verdict, "headline": headline, "reason": found["statement"]}


def _in_words(found: dict[str, Any], alpha: float) -> str:
    if not found["fair"]:
        return (
            f"The draft is not fair: the first position is not the treatment's in half of the lists "
            f"(p = {found['fair_p']:.2g}), so credits cannot be compared."
        )
    if found["withheld"]:
        return f"Withheld: {found['withheld']}."
    low, high = found["interval"]
    side = "is preferred" if low > 0.5 else "is the less preferred" if high < 0.5 else "is neither preferred nor not"
    return (
        f"{found['treatment']} {side}: {found['share']:.1%} of the credited clicks, {1 - alpha:.0%} interval {low:.1%} "
        f"to {high:.1%}, p = {found['p']:.2g}."
    )
