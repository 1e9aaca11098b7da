"""Whether an experiment can be believed at all: sample ratio, assignment, duplicates, contamination, gaps, silence.

Every check passes, warns, or blocks; a blocked experiment gets no verdict on its metrics, because its two groups are
not comparable or its logs are not complete (Fabijan et al. 2019 on sample ratio mismatch).
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from monitoring.definition import Definition
from monitoring.fixed_horizon import aggregate, compare, sample_ratio
from monitoring.metrics import Metric
from monitoring.outcomes import Outcomes
from monitoring.units import Units
from uniscale.assignment import assign

MAX_CONTAMINATED = 0.01  # share of users seen in both variants above which leaving them out is no longer harmless
SILENCE = 100  # events in one variant that make their total absence in the other a fault
LOGGED = Metric("logged", "Requests with exposures", "logged", "higher", "share", "", denominator="requests")


@dataclass(frozen=True)
class Check:
    """One check: a name, what it decided, and the sentence with its numbers."""

    name: str
    status: Literal["pass", "warn", "block"]
    statement: str


def sample_ratio_check(
    control: int, treatment: int, expected: float, warn: float, block: float, noun: str = "users"
) -> dict[str, Any]:
    """Sample ratio mismatch of two counts of users (or what `noun` says) against the expected share of the treatment.

    Returns:
        `p`, `status` (pass | warn | block), the counts, the expected and observed share, and a `statement`.
    """
    p = sample_ratio(control, treatment, expected / (1 - expected))
    status = "block" if p < block else "warn" if p < warn else "pass"
    observed = treatment / (control + treatment)
    bound = {"block": f" < {block:g}", "warn": f" < {warn:g}", "pass": ""}[status]
    statement = (
        f"{control:,} {noun} in the control, {treatment:,} in the treatment: {observed:.2%} in the treatment where "
        f"{expected:.2%} were planned, p = {p:.2g}{bound}."
    )
    counts = {"control": control, "treatment": treatment, "expected": expected, "observed": observed}
    return {"p": p, "status": status, **counts, "statement": statement}


def check_logs(outcomes: Outcomes, config: Definition, control: str, treatment: str) -> list[Check]:
    """Every check that the logs alone allow, sample ratio left out."""
    pair = [control, treatment]
    return [
        *_rows(outcomes, pair),
        _assignment(outcomes, config),
        _contamination(outcomes, pair),
        _days(outcomes, pair),
        _silence(outcomes, control, treatment),
        _exposure_logging(outcomes, config, control, treatment),
    ]


def check_units(units: Units, config: Definition, variants: tuple[str, str]) -> list[Check]:
    """The checks that a table with one row a unit (or a unit and day) allows, sample ratio left out."""
    pair = list(variants)
    checks = [_duplicates(units.repeated, units.table_rows, "rows", "a unit")]
    other = units.rows("SELECT variant, sum(times) FROM served WHERE NOT list_contains(?, variant) GROUP BY 1", [pair])
    if other:
        checks.append(_others(int(sum(rows for _, rows in other)), [name for name, _ in other]))
    if units.nameless:
        checks.append(
            Check("rows", "warn", f"{units.nameless:,} rows lack a unit, a variant or a day and are left out.")
        )
    return [*checks, _assignment(units, config), _contamination(units, pair)]


def _rows(outcomes: Outcomes, pair: list[str]) -> list[Check]:
    rows, ids, other = outcomes.rows(
        "SELECT count(*), count(DISTINCT request_id), count(*) FILTER (NOT list_contains(?, variant)) FROM served",
        [pair],
    )[0]
    checks = [_duplicates(rows - ids, rows, "serving rows", "a request")]
    if other:
        found = outcomes.rows("SELECT DISTINCT variant FROM served WHERE NOT list_contains(?, variant)", [pair])
        checks.append(_others(other, [name for (name,) in found]))
    return checks


def _duplicates(repeated: int, rows: int, noun: str, key: str) -> Check:
    if repeated:
        return Check("duplicates", "warn", f"{repeated:,} of {rows:,} {noun} repeat {key}; each counts once.")
    return Check("duplicates", "pass", f"{rows:,} {noun}, none repeats {key}.")


def _others(rows: int, names: list[str]) -> Check:
    return Check("other variants", "warn", f"{rows:,} rows of {', '.join(sorted(names))} are left out.")


def _assignment(outcomes: Outcomes, config: Definition) -> Check:
    if config.salt is None:
        return Check("assignment", "pass", "Not rechecked: the experiment names no salt, others assigned its users.")
    logged = outcomes.rows("SELECT DISTINCT user_id, variant FROM served ORDER BY ALL")
    wrong = [(user, variant) for user, variant in logged if assign(user, config.salt, config.weights) != variant]
    if wrong:
        user, variant = wrong[0]
        planned = assign(user, config.salt, config.weights)
        return Check(
            "assignment",
            "block",
            f"{len(wrong):,} of {len(logged):,} logged variants are not those of salt {config.salt!r} and weights "
            f"{config.weights}: user {user!r} was served {variant}, the hash says {planned}. The log comes from other "
            "settings, or something other than the hash chose the variant.",
        )
    return Check("assignment", "pass", f"All {len(logged):,} users were served the variant their hash gives.")


def _contamination(outcomes: Outcomes, pair: list[str]) -> Check:
    users, both = outcomes.rows(
        "SELECT count(*), count(*) FILTER (n > 1) FROM (SELECT user_id, count(DISTINCT variant) AS n FROM served "
        "WHERE list_contains(?, variant) GROUP BY user_id)",
        [pair],
    )[0]
    if not both:
        return Check("contamination", "pass", "No user was served by both variants.")
    status: Literal["warn", "block"] = "block" if both / users > MAX_CONTAMINATED else "warn"
    return Check("contamination", status, f"{both:,} of {users:,} users were served by both variants and are left out.")


def _days(outcomes: Outcomes, pair: list[str]) -> Check:
    seen = set(outcomes.rows("SELECT DISTINCT variant, day FROM requests"))
    days = sorted({day for _, day in seen})
    if not days:
        return Check("days", "block", "No request of either variant is left to analyse.")
    span = [days[0] + timedelta(days=n) for n in range((days[-1] - days[0]).days + 1)]
    missing = [f"{day} ({_absent(day, seen, pair)})" for day in span if any((name, day) not in seen for name in pair)]
    if missing:
        return Check("days", "warn", f"Days without requests: {', '.join(missing)}.")
    return Check("days", "pass", f"Every day from {days[0]} to {days[-1]} has requests of both variants.")


def _absent(day: date, seen: set[tuple[Any, ...]], pair: list[str]) -> str:
    absent = [name for name in pair if (name, day) not in seen]
    return "both variants" if len(absent) == 2 else absent[0]


def _silence(outcomes: Outcomes, control: str, treatment: str) -> Check:
    columns = ("impressions", "clicks", "orders")
    totals = {
        row[0]: dict(zip(columns, row[1:], strict=True))
        for row in outcomes.rows(f"SELECT variant, {', '.join(f'sum({c})' for c in columns)} FROM requests GROUP BY 1")
    }
    for silent, loud in ((control, treatment), (treatment, control)):
        for column in columns:
            there, here = totals.get(loud, {}).get(column, 0), totals.get(silent, {}).get(column, 0)
            if here == 0 and there >= SILENCE:
                return Check(
                    "silence",
                    "block",
                    f"{silent} has no {column} at all while {loud} has {there:,}: its logger or its ranking is broken.",
                )
    return Check("silence", "pass", "Neither variant is silent where the other is not.")


def _exposure_logging(outcomes: Outcomes, config: Definition, control: str, treatment: str) -> Check:
    arms = aggregate(outcomes.table(outcomes.users()), [LOGGED], covariates=False)
    name = "exposure logging"
    if not {control, treatment} <= set(arms):
        return Check(name, "pass", "Not compared: a variant has no users.")
    found = compare(LOGGED, arms[control], arms[treatment], alpha=config.alpha, covariates=False)
    before, now = found["control"], found["treatment"]
    if before is None or now is None:
        return Check(name, "pass", f"Not compared: {found['withheld']}.")
    shares = f"{before:.2%} of the control's and {now:.2%} of the treatment's requests"
    if before == now == 0:
        return Check(name, "block", "No served request has an exposure: the serving log and these logs do not match.")
    if found["p"] is not None and found["p"] < config.srm_block:
        text = f"Exposures were logged for {shares} (p = {found['p']:.1g}): one logger loses rows."
        return Check(name, "block", text)
    if min(before, now) < 0.99:
        return Check(name, "warn", f"Exposures were logged for {shares}; requests without count as nothing shown.")
    return Check(name, "pass", f"Exposures were logged for {shares}.")
