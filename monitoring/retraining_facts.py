"""What the retraining policy is asked with: trainings and the champion's days from the registry, verdicts of drift."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

from monitoring.drift_history import history
from monitoring.retraining import Policy, choose
from uniscale.artifacts import read_json
from uniscale.registry import Registry
from uniscale.sections import RetrainingConfig


def trainings(registry: Registry) -> list[date]:
    """Days of the runs that registered models, oldest first; a run and the baseline it trained count once."""
    runs: dict[str, date] = {}
    for entry in registry.history():
        if entry.action == "register":
            run = entry.details["run_id"].removesuffix("-baseline")
            runs.setdefault(run, datetime.fromisoformat(entry.at).date())
    return sorted(runs.values())


def last_seen(registry: Registry) -> str:
    """Last day that the champion was trained on, ISO; empty where there is no champion or its card does not say."""
    champion = registry.champion()
    if champion is None:
        return ""
    days = read_json(champion.folder / "model.json")["training"].get("days")
    return str(days[1]) if days else ""


def retrain(
    config: RetrainingConfig,
    registry: Registry,
    drift_history: Path,
    days: list[str],
    late_labels: bool,
    running: bool,
    today: date,
) -> dict[str, Any]:
    """Ask the policy.

    Args:
        config: its rules.
        registry: of the model that is served.
        drift_history: folder of `monitoring.drift_history`.
        days: mature days that there are, ISO.
        late_labels: the newest labels are missing.
        running: an experiment is before users.
        today: the day of the decision.

    Returns:
        JSON-able: `train`, `why`, and the facts that decided it.
    """
    seen = last_seen(registry)
    verdicts = [e["verdict"] for e in history(drift_history) if e["windows"]["current"][1] > seen]
    new = [day for day in days if day > seen]
    trained = trainings(registry)
    choice = choose(Policy(**config.model_dump()), today, trained, verdicts, len(new), late_labels, running)
    return {
        "train": choice.train,
        "why": choice.why,
        "trained": [day.isoformat() for day in trained],
        "seen_until": seen,
        "new_days": new,
        "verdicts": verdicts,
        "late_labels": late_labels,
        "experiment_running": running,
    }
