"""Analysis of an experiment: trust checks, scorecard, guardrails, verdict, and its page.

Data are the service's logs (`outcomes`), a table with one row a unit (`units`), or totals an arm (`counts`).
Statistics: fixed-horizon lifts per user by delta method and CUPED (`fixed_horizon`), always-valid intervals for looks
before the end (`sequential`), clustered quantiles (`quantiles`), and a verdict with its reason (`decision`).
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from monitoring.behaviour_checks import NOVELTY_DAYS, clock_skew, find_bots, novelty
from monitoring.counts import count_rows
from monitoring.decision import decide, guardrail
from monitoring.definition import CountsSource, Definition, UnitsSource, pipeline_definition
from monitoring.health import Check, check_logs, check_units, sample_ratio_check
from monitoring.interleaving import analyse_interleaving, verdict_on
from monitoring.latency import latency
from monitoring.outcomes import COLUMNS, Outcomes, load_outcomes
from monitoring.page import render
from monitoring.scorecard import adjust_secondary, by_day, cuts, scorecard, watched_by_day
from monitoring.tables import engine, scan
from monitoring.units import load_units
from uniscale.artifacts import atomic_folder, write_json
from uniscale.config import nearest
from uniscale.errors import ConfigError
from uniscale.sections import ExperimentConfig

UNIT_OF = {
    "logs": "The user is the unit: randomised, and analysed with all requests of the user together.",
    "units": "Each row's unit was randomised and is the unit of analysis.",
    "counts": "Impression-level binomial: only totals an arm are known, so impressions are taken as independent. Where "
    "users come back, the true intervals are wider.",
}


def analyse(
    config: ExperimentConfig,
    serving_log: Path,
    logs: Path,
    out: Path,
    pre_period: Path | None = None,
    treatment: str = "candidate",
    control: str = "champion",
) -> dict[str, Any]:
    """Analyse the pipeline's own experiment from the section `experiment` of params.yaml.

    An A/B as `analyse_logs` does; interleaved lists, whose users have no variant, by `monitoring.interleaving`, into
    `interleaving.json`.
    """
    if config.mode == "interleave":
        found = analyse_interleaving(serving_log, logs, treatment, config.alpha)
        with atomic_folder(out) as folder:
            write_json(folder / "interleaving.json", found)
        return found
    definition = pipeline_definition(config, control, treatment)
    return analyse_logs(definition, serving_log, logs, out, pre_period, treatment)


def analyse_logs(
    definition: Definition,
    serving_log: Path,
    logs: Path,
    out: Path,
    pre_period: Path | None = None,
    treatment: str | None = None,
    since: datetime | None = None,
    spark: Any = None,
) -> dict[str, Any]:
    """Analyse one experiment and write `experiment.json` and `experiment.html` into the folder `out`.

    Args:
        definition: the experiment, with source `logs`.
        serving_log: folder of `uniscale.serving_log` rows, `day=…/*.parquet`.
        logs: folder in the log contract whose exposures and events refer to the served requests.
        out: folder to write.
        pre_period: folder in the log contract with requests before the experiment, for CUPED and the new-user cut.
        treatment: the variant under test; the first one that is not the control unless given.
        since: start of the present weights; earlier requests are left out.
        spark: a SparkSession that computes the tables of users and requests; DuckDB does without one.

    Returns:
        What `experiment.json` holds: verdict and reason, checks, sample ratio, scorecard, guardrails, cumulative lift
        by day, latency, cuts, freshness. Every number is finite or null, and a null has its reason beside it.

    Raises:
        ConfigError: an unknown variant, or a metric over a column that logs do not have.
        DataError: a log is missing.
    """
    treatment = _treatment(definition, treatment)
    for metric in definition.means:
        for column in metric.columns:
            if column not in COLUMNS:
                raise ConfigError(f"metric {metric.name}: logs have no column {column!r}{nearest(column, COLUMNS)}")
    with engine(out, spark) as tables:
        outcomes = load_outcomes(tables, serving_log, logs, pre_period, (definition.control, treatment), since)
        checks = check_logs(outcomes, definition, definition.control, treatment)
        bots = find_bots(outcomes)
        if bots["users"]:
            text = f"{bots['users']:,} users ask like bots and make {bots['share']:.1%} of the requests; the greatest: "
            checks.append(Check("bots", "warn", text + ", ".join(bots["names"]) + "."))
        if skewed := clock_skew(outcomes, Path(logs)):
            checks.append(Check("clock skew", "warn", skewed))
        versions = {
            name: [
                v for (v,) in outcomes.rows("SELECT DISTINCT version FROM asked WHERE variant = ? ORDER BY 1", [name])
            ]
            for name in (definition.control, treatment)
        }
        sizes = {
            name: {
                "requests": outcomes.one("SELECT count(*) FROM requests WHERE variant = ?", [name]),
                "impressions": int(
                    outcomes.one("SELECT coalesce(sum(impressions), 0) FROM requests WHERE variant = ?", [name])
                ),
            }
            for name in (definition.control, treatment)
        }
        slow = [
            latency(definition, m, outcomes, definition.control, treatment) for m in definition.metrics if m.quantile
        ]
        result = _assess(definition, outcomes, treatment, checks, versions, sizes, slow)
        result["cuts"] = cuts(definition, outcomes, definition.control, treatment)
        result["freshness"] = {"cuped": outcomes.has_before} | _freshness(outcomes, logs)
    return _write(out, result)


def analyse_lists(
    definition: Definition, serving_log: Path, logs: Path, out: Path, since: datetime | None = None
) -> dict[str, Any]:
    """Analyse one experiment of mode interleave and write `interleaving.json` into the folder `out`.

    Args:
        definition: the experiment.
        serving_log: folder of `uniscale.serving_log` rows; those that both variants drafted count.
        logs: folder in the log contract whose events refer to the served requests.
        out: folder to write.
        since: start of the experiment; earlier lists are left out.

    Returns:
        `monitoring.interleaving`'s result with name, `mode`, verdict, headline and reason.

    Raises:
        DataError: a log is missing, or no list was drafted by the experiment's variants.
    """
    found = analyse_interleaving(serving_log, logs, definition.treatments[0], definition.alpha, since)
    result = {"name": definition.name, "mode": definition.mode, **verdict_on(found, definition.days), **found}
    with atomic_folder(out) as folder:
        write_json(folder / "interleaving.json", result)
    return result


def analyse_table(definition: Definition, data: Path, out: Path, treatment: str | None = None) -> dict[str, Any]:
    """Analyse an experiment from a table of units or of totals an arm; writes and returns what `analyse_logs` does.

    Args:
        definition: the experiment, with source `units` or `counts`.
        data: CSV or Parquet file.
        out: folder to write.
        treatment: the variant under test; the first one that is not the control unless given.

    Raises:
        ConfigError: an unknown variant.
        DataError: no such file, or it lacks a column or has values that no metric can use.
    """
    treatment, source = _treatment(definition, treatment), definition.source
    with engine(out) as tables:
        pair = (definition.control, treatment)
        if isinstance(source, CountsSource):
            counted = count_rows(tables.connection, definition, source, data, pair)
            result = _judged(definition, treatment, {}, {}, counted.trials, counted.checks, counted.rows, [], [])
            result["latency"] = []
        else:
            assert isinstance(source, UnitsSource)
            units = load_units(tables.connection, definition, source, data, pair)
            result = _assess(definition, units, treatment, check_units(units, definition, pair), {}, {}, [])
    result |= {"cuts": {"metric": definition.primary, "rows": [], "withheld": None}, "freshness": None}
    return _write(out, result)


def _assess(
    definition: Definition,
    outcomes: Outcomes,
    treatment: str,
    checks: list[Check],
    versions: dict[str, list[str]],
    sizes: dict[str, dict[str, int]],
    slow: list[dict[str, Any]],
) -> dict[str, Any]:
    """The result from per-user tables."""
    control = definition.control
    users, days = outcomes.users_by_variant(), outcomes.days()
    rows = scorecard(definition, outcomes, control, treatment, len(days) or definition.days)
    rows += [found["row"] for found in slow]
    looks = list(outcomes.looks(watched_by_day(definition), days, alone=len(days) >= NOVELTY_DAYS))
    if wears := novelty(definition, looks, (control, treatment)):
        checks.append(Check("novelty", "warn", wears))
    result = _judged(definition, treatment, versions, sizes, users, checks, rows, days, slow)
    result["by_day"] = by_day(definition, looks, (control, treatment), outcomes.has_before)
    return result


def _judged(
    definition: Definition,
    treatment: str,
    versions: dict[str, list[str]],
    sizes: dict[str, dict[str, int]],
    users: dict[str, int],
    found: Sequence[Check],
    rows: list[dict[str, Any]],
    days: list[str],
    slow: list[dict[str, Any]],
) -> dict[str, Any]:
    """Sample ratio, guardrails and verdict around a scorecard; without days the experiment is taken as complete."""
    control, checks = definition.control, [asdict(check) for check in found]
    empty = [name for name in (control, treatment) if not users.get(name)]
    ratio, noun = None, {"units": "units", "counts": "trials"}.get(definition.source.kind, "users")
    if empty:
        statement = (
            f"No {noun.removesuffix('s')} of {' or '.join(empty)} is in the data, so there is nothing to compare."
        )
        checks.insert(0, {"name": "empty variant", "status": "block", "statement": statement})
    else:
        expected = definition.weights[treatment] / (definition.weights[treatment] + definition.weights[control])
        ratio = sample_ratio_check(
            users[control], users[treatment], expected, definition.srm_warn, definition.srm_block, noun
        )
        checks.insert(0, {"name": "sample ratio", "status": ratio["status"], "statement": ratio["statement"]})
    for name, served in versions.items():
        if len(served) > 1:
            text = f"{name} served {len(served)} model versions ({', '.join(served)}): its lift is that of the mixture."
            checks.append({"name": "versions", "status": "warn", "statement": text})
    same = bool(versions) and len(versions[control]) == 1 and versions[control] == versions[treatment]
    mode, complete = "A/A" if same else "A/B", not days or len(days) >= definition.days
    adjust_secondary(definition, rows)
    by_name = {row["name"]: row for row in rows}
    guardrails = [guardrail(by_name[name], margin, complete) for name, margin in definition.guardrails.items()]
    source = definition.source.kind
    return {
        "name": definition.name,
        "hypothesis": definition.hypothesis,
        "owner": definition.owner,
        "source": {"kind": source, "statement": UNIT_OF[source]},
        "mode": mode,
        **decide(
            mode=mode,
            blocks=[check["statement"] for check in checks if check["status"] == "block"],
            primary=by_name[definition.primary],
            rows=rows,
            guardrails=guardrails,
            complete=complete,
            days=(len(days) or definition.days, definition.days),
            alpha=definition.alpha,
            target=definition.mde_target,
            early=definition.stop.early,
        ),
        "variants": {
            role: {
                "name": name,
                "versions": versions.get(name, []),
                "users": users.get(name, 0),
                **sizes.get(name, {}),
            }
            for role, name in (("control", control), ("treatment", treatment))
        },
        "days": {"present": days, "planned": definition.days, "complete": complete},
        "primary": definition.primary,
        "alpha": definition.alpha,
        "power": definition.power,
        "mde_target": definition.mde_target,
        "sample_ratio": ratio,
        "checks": checks,
        "metrics": rows,
        "guardrails": guardrails,
        "by_day": [],
        "latency": [row for one in slow for row in one["quantiles"]],
    }


def _treatment(definition: Definition, name: str | None) -> str:
    if name is None:
        return definition.treatments[0]
    if name not in definition.treatments:
        raise ConfigError(f"unknown treatment {name!r}{nearest(name, definition.treatments)}")
    return name


def _write(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    with atomic_folder(out) as folder:
        write_json(folder / "experiment.json", result)
        (folder / "experiment.html").write_text(render(result))
    return result


def _freshness(outcomes: Outcomes, logs: Path) -> dict[str, Any]:
    first, last = outcomes.rows(f"SELECT {_text('min(ts)')}, {_text('max(ts)')} FROM asked")[0]
    event = outcomes.one(f"SELECT {_text('max(ts)')} FROM {scan(logs / 'events', 'events')}")
    return {"first_request": first, "last_request": last, "last_event": event}


def _text(time: str) -> str:
    return f"strftime({time}, '%Y-%m-%d %H:%M UTC')"
