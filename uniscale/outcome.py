"""The last word of a run, however it ended: an outcome on record, a page where it has none, and a notification."""

import html
import json
import subprocess
from pathlib import Path
from typing import Any

from uniscale.artifacts import read_json, write_json
from uniscale.run_report import STYLE
from uniscale.sections import NotifyConfig


def record_outcome(config: NotifyConfig, runs: Path, run_id: str, state: str, error: str) -> dict[str, Any]:
    """Write `outcome.json` into the run's folder, `report.html` where the run did not come to its own, and notify.

    Args:
        config: whom to tell.
        runs: folder of all runs.
        run_id: the run, which names its folder.
        state: SUCCEEDED, FAILED or CANCELED (Kubeflow's names).
        error: what the runner says of a failure; a run of this machine has the step and its error in its manifest.

    Returns:
        What outcome.json holds: run, state, step (that failed, where known), error, decision and failed (of the gate,
        None where it was not reached), report (path of the page), notified (None where nobody is to be told, else an
        empty string or why it failed).
    """
    folder = Path(runs) / run_id
    summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
    gate = summary.get("gate", {})
    manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
    failure = (manifest.get("failure") or {}) if state == "FAILED" else {}
    report = folder / "report.html"
    outcome = {
        "run": run_id,
        "state": state,
        "step": failure.get("step"),
        "error": failure.get("error", error),
        "decision": gate.get("decision"),
        "failed": gate.get("failed"),
        "report": str(report),
    }
    write_json(folder / "outcome.json", outcome)
    if not summary:
        report.write_text(_page(outcome), encoding="utf-8")
    outcome["notified"] = notify(config, outcome)
    write_json(folder / "outcome.json", outcome)
    return outcome


def notify(config: NotifyConfig, outcome: dict[str, Any]) -> str | None:
    """Hand an outcome to the command (JSON on its standard input) and to the URL (POST); never raises.

    Returns:
        None where neither is configured, an empty string where all went well, else what did not.
    """
    told = [tell(config, outcome) for tell, asked in ((_run, config.command), (_post, config.url)) if asked]
    return "; ".join(filter(None, told)) if told else None


def _run(config: NotifyConfig, outcome: dict[str, Any]) -> str:
    given, seconds = json.dumps(outcome), config.timeout_seconds
    try:
        done = subprocess.run(config.command, input=given, text=True, capture_output=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{config.command[0]}: {error}"
    return f"{config.command[0]} ended with {done.returncode}: {done.stderr[-300:]}" if done.returncode else ""


def _post(config: NotifyConfig, outcome: dict[str, Any]) -> str:
    import httpx

    try:
        answer = httpx.post(config.url, json=outcome, timeout=config.timeout_seconds)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{config.url}: {type(error).__name__}: {error}"
    return "" if answer.is_success else f"{config.url} answered {answer.status_code}"


def _page(outcome: dict[str, Any]) -> str:
    name, state, error = (html.escape(str(outcome[key])) for key in ("run", "state", "error"))
    step = f"<p>Step {html.escape(outcome['step'])} failed.</p>" if outcome["step"] else ""
    said = step + (f'<pre style="white-space:pre-wrap">{error}</pre>' if error else "")
    return (
        f"{STYLE.replace('{title}', f'Run {name}')}<h1>Run {name}: {state.lower()}</h1><p>No summary: the run did "
        + (f"not come to its end. The champion stays as it was unless the registry's history says otherwise.</p>{said}")
    )
