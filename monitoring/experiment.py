"""Analysis of an online experiment from logs alone: trust checks, scorecard, guardrails, verdict, and its page.

Statistics: fixed-horizon lifts per user by delta method and CUPED (`fixed_horizon`), always-valid intervals for looks
before the end (`sequential`), clustered latency quantiles (`quantiles`), and a verdict with its reason (`decision`).
"""

import difflib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb

from monitoring.decision import decide, guardrail
from monitoring.health import check_logs, sample_ratio_check
from monitoring.latency import latency
from monitoring.metrics import BY_NAME, LATENCY
from monitoring.outcomes import Outcomes, load_outcomes, scan
from monitoring.page import render
from monitoring.scorecard import adjust_secondary, by_day, cuts, scorecard
from uniscale.artifacts import atomic_folder, write_json
from uniscale.errors import ConfigError
from uniscale.sections import ExperimentConfig


def analyse(
    config: ExperimentConfig,
    serving_log: Path,
    logs: Path,
    out: Path,
    pre_period: Path | None = None,
    treatment: str = "candidate",
    control: str = "champion",
) -> dict[str, Any]:
    """Analyse one experiment and write `experiment.json` and `experiment.html` into the folder `out`.

    Args:
        config: salt, weights, planned days, levels, guardrails and the primary metric.
        serving_log: folder of `uniscale.serving_log` rows, `day=…/*.parquet`.
        logs: folder in the log contract whose exposures and events refer to the served requests.
        pre_period: folder in the log contract with requests before the experiment, for CUPED and the new-user cut.
        treatment: the variant under test.
        control: the variant it is compared with.

    Returns:
        What `experiment.json` holds: verdict and reason, checks, sample ratio, scorecard, guardrails, cumulative lift
        by day, latency, cuts, freshness. Every number is finite or null, and a null has its reason beside it.

    Raises:
        ConfigError: an unknown metric, or a variant without a positive weight.
        DataError: a log is missing.
    """
    _check_config(config, control, treatment)
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '1GB'; SET temp_directory = '{scratch}'")
        outcomes = load_outcomes(connection, serving_log, logs, pre_period, (control, treatment))
        result = _analyse(config, outcomes, control, treatment)
        result["freshness"] |= _freshness(outcomes, logs)
    with atomic_folder(out) as folder:
        write_json(folder / "experiment.json", result)
        (folder / "experiment.html").write_text(render(result))
    return result


def _analyse(config: ExperimentConfig, outcomes: Outcomes, control: str, treatment: str) -> dict[str, Any]:
    users = dict(outcomes.rows("SELECT variant, count(DISTINCT user_id) FROM requests GROUP BY 1"))
    checks = [asdict(check) for check in check_logs(outcomes, config, control, treatment)]
    ratio = None
    empty = [name for name in (control, treatment) if not users.get(name)]
    if empty:
        statement = f"No user of {' or '.join(empty)} is in the logs, so there is nothing to compare."
        checks.insert(0, {"name": "empty variant", "status": "block", "statement": statement})
    else:
        expected = config.weights[treatment] / (config.weights[treatment] + config.weights[control])
        ratio = sample_ratio_check(users[control], users[treatment], expected, config.srm_warn, config.srm_block)
        checks.insert(0, {"name": "sample ratio", "status": ratio["status"], "statement": ratio["statement"]})
    days = [str(day) for (day,) in outcomes.rows("SELECT DISTINCT day FROM requests ORDER BY 1")]
    complete = len(days) >= config.days
    rows = scorecard(config, outcomes, control, treatment, len(days))
    by_name = {row["name"]: row for row in rows}
    slow = latency(config, outcomes, control, treatment)
    by_name[LATENCY.name] = slow["row"]
    adjust_secondary(config, [*rows, slow["row"]])
    guardrails = [guardrail(by_name[name], margin, complete) for name, margin in config.guardrails.items()]
    versions = {
        name: sorted(
            version for (version,) in outcomes.rows("SELECT DISTINCT version FROM asked WHERE variant = ?", [name])
        )
        for name in (control, treatment)
    }
    mode = "A/A" if len(versions[control]) == 1 and versions[control] == versions[treatment] else "A/B"
    for name, served in versions.items():
        if len(served) > 1:
            text = f"{name} served {len(served)} model versions ({', '.join(served)}): its lift is that of the mixture."
            checks.append({"name": "versions", "status": "warn", "statement": text})
    primary = by_name[config.primary]
    return {
        "mode": mode,
        **decide(
            mode=mode,
            blocks=[check["statement"] for check in checks if check["status"] == "block"],
            primary=primary,
            rows=[*rows, slow["row"]],
            guardrails=guardrails,
            complete=complete,
            days=(len(days), config.days),
            alpha=config.alpha,
            target=config.mde_target,
        ),
        "variants": {
            role: {
                "name": name,
                "versions": versions[name],
                "users": users.get(name, 0),
                "requests": outcomes.one("SELECT count(*) FROM requests WHERE variant = ?", [name]),
                "impressions": int(
                    outcomes.one("SELECT coalesce(sum(impressions), 0) FROM requests WHERE variant = ?", [name])
                ),
            }
            for role, name in (("control", control), ("treatment", treatment))
        },
        "days": {"present": days, "planned": config.days, "complete": complete},
        "primary": config.primary,
        "alpha": config.alpha,
        "power": config.power,
        "mde_target": config.mde_target,
        "sample_ratio": ratio,
        "checks": checks,
        "metrics": [*rows, slow["row"]],
        "guardrails": guardrails,
        "by_day": by_day(config, outcomes, control, treatment, days),
        "latency": slow["quantiles"],
        "cuts": cuts(config, outcomes, control, treatment),
        "freshness": {"cuped": outcomes.has_before},
    }


def _freshness(outcomes: Outcomes, logs: Path) -> dict[str, Any]:
    first, last = outcomes.rows(f"SELECT {_text('min(ts)')}, {_text('max(ts)')} FROM asked")[0]
    event = outcomes.one(f"SELECT {_text('max(ts)')} FROM {scan(logs / 'events', 'events')}")
    return {"first_request": first, "last_request": last, "last_event": event}


def _text(time: str) -> str:
    return f"strftime({time}, '%Y-%m-%d %H:%M UTC')"


def _check_config(config: ExperimentConfig, control: str, treatment: str) -> None:
    for where, name in [
        ("experiment.primary", config.primary),
        *(("experiment.guardrails", n) for n in config.guardrails),
    ]:
        if name not in BY_NAME:
            close = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known metrics: {', '.join(BY_NAME)}"
            raise ConfigError(f"{where}: unknown metric {name!r}; {hint}")
    for name in (control, treatment):
        if config.weights.get(name, 0.0) <= 0:
            raise ConfigError(f"experiment.weights: variant {name!r} needs a positive weight, got {config.weights}")
