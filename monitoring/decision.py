"""The verdict of an experiment: ship, keep running, roll back, underpowered, or invalid, each with its reason.

Before the planned end only always-valid intervals may stop an experiment (and only for harm); at the planned end the
fixed-horizon ones decide. A guardrail is non-inferior when its whole interval lies on the right side of its margin,
breached when its whole interval lies beyond it, and open in between.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from monitoring.fixed_horizon import adjust

Row = Mapping[str, Any]


def guardrail(row: Row, margin: float, complete: bool) -> dict[str, Any]:
    """Judge one metric against its relative non-inferiority margin.

    Args:
        row: the metric's row of the scorecard.
        margin: relative loss that is tolerated, e.g. 0.05; for a metric where lower is better, relative growth.
        complete: the planned days are over, so the fixed-horizon interval may be used as well.
    """
    label, sign = row["label"], 1 if row["better"] == "higher" else -1
    bound = f"{-sign * margin:+.1%}"
    always = row["always_valid"] and row["always_valid"]["interval"]
    candidates = [(always, "always-valid")] + ([(row["interval"], "fixed-horizon")] if complete else [])
    judged = {"metric": row["name"], "label": label, "margin": margin, "status": "open"}
    usable = [(interval, kind) for interval, kind in candidates if interval]
    if not usable:
        reason = row["withheld"] or row["always_valid_withheld"] or "no interval before the planned end"
        return judged | {"statement": f"{label}: not judged yet ({reason})."}
    for status, verb in (("breach", "is beyond"), ("pass", "stays within")):
        for interval, kind in usable:
            worst, best = (interval[0], interval[1]) if sign > 0 else (-interval[1], -interval[0])
            if (best < -margin) if status == "breach" else (worst > -margin):
                text = f"{label} {verb} its margin of {bound}: {kind} interval {_span(interval)}."
                return judged | {"status": status, "statement": text}
    interval, kind = usable[-1]
    return judged | {"statement": f"{label}: {kind} interval {_span(interval)} contains the margin of {bound}."}


def decide(
    *,
    mode: str,
    blocks: Sequence[str],
    primary: Row,
    rows: Sequence[Row],
    guardrails: Sequence[Row],
    complete: bool,
    days: tuple[int, int],
    alpha: float,
    target: float,
    early: str = "harm",
) -> dict[str, str]:
    """The verdict with a headline and the reason.

    Args:
        mode: `A/B`, or `A/A` where both variants carry one model version.
        blocks: statements of the checks that block.
        primary: the deciding metric's row.
        rows: all rows, for the A/A.
        guardrails: results of `guardrail`.
        complete: the planned days are over.
        days: days seen and days planned.
        alpha: level of the fixed-horizon test.
        target: relative lift that the experiment should be able to see.
        early: `harm`, or `either` where an always-valid gain may ship before the planned end as well.
    """
    label, better = primary["label"], 1 if primary["better"] == "higher" else -1
    seen = f"{days[0]} of {days[1]} planned days"
    if blocks:
        return _verdict("invalid", "Do not read the lifts: a check blocks", " ".join(blocks))
    if mode == "A/A":
        return _judge_a_a(rows, alpha)
    breached = [row for row in guardrails if row["status"] == "breach"]
    if breached:
        return _verdict("roll back", "A guardrail is breached", " ".join(row["statement"] for row in breached))
    always = primary["always_valid"] and primary["always_valid"]["interval"]
    if always and max(better * bound for bound in always) < 0:
        reason = (
            f"{label} {primary['lift']:+.1%}, always-valid interval {_span(always)} lies wholly on the losing side."
        )
        return _verdict("roll back", f"{label} is worse", reason)
    if primary["p"] is None:
        return _verdict("keep running", f"{label} cannot be compared yet", f"{label}: {primary['withheld']}.")
    measured = (
        f"{label} {primary['lift']:+.1%}, {1 - alpha:.0%} interval {_span(primary['interval'])}, p = {primary['p']:.2g}"
    )
    waiting = [row for row in guardrails if row["status"] != "pass"]
    if early == "either" and not complete and not waiting and always and min(better * bound for bound in always) > 0:
        reason = f"{measured}; always-valid interval {_span(always)}, and the stop rule lets a gain end it."
        return _verdict("ship", f"{label} is better", reason)
    if not complete:
        return _verdict("keep running", f"{seen}", f"{measured}; nothing harmful is proven and the end is not reached.")
    significant = primary["p"] < alpha
    if significant and better * primary["lift"] < 0:
        return _verdict("roll back", f"{label} is worse", f"{measured} at the planned end.")
    if significant and waiting:
        reason = f"{measured}, but {' '.join(row['statement'] for row in waiting)}"
        return _verdict("keep running", f"{label} is better, a guardrail is still open", reason)
    if significant:
        within = "every guardrail within its margin" if guardrails else "no guardrail was set"
        return _verdict("ship", f"{label} is better", f"{measured}; {within}.")
    if primary["mde"] is None or primary["mde"] > target:
        needed = f"; about {primary['users_needed']:,} users are needed" if primary["users_needed"] else ""
        reason = (
            f"{measured}. The least lift it can see is {_share(primary['mde'])}, the target is {target:.1%}{needed}."
        )
        return _verdict("underpowered", "Too few users to tell", reason)
    reason = f"{measured}. A lift of {target:.1%} would have been seen, so there is nothing to ship: the control stays."
    return _verdict("roll back", f"No gain in {label} of the size looked for", reason)


def _judge_a_a(rows: Sequence[Row], alpha: float) -> dict[str, str]:
    adjusted = adjust({row["name"]: row["p"] for row in rows if row["p"] is not None}, alpha)
    apart = [row for row in rows if adjusted.get(row["name"], 1.0) < alpha]
    if apart:
        named = ", ".join(f"{row['label']} {row['lift']:+.1%}" for row in apart)
        reason = f"Both variants serve one model version, yet {named} differ: suspect assignment or logging."
        return _verdict("keep running", "A/A: a difference where none can be", reason)
    tested = sum(row["p"] is not None for row in rows)
    reason = (
        f"Both variants serve one model version; {tested} metrics compared, none differs. There is nothing to ship."
    )
    return _verdict("keep running", "A/A: no difference, as it should be", reason)


def _verdict(verdict: str, headline: str, reason: str) -> dict[str, str]:
    return {"verdict": verdict, "headline": headline, "reason": reason}


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:+.1%} to {interval[1]:+.1%}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
