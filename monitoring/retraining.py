"""When to train again: by drift or by age, within a budget, so that noise cannot make the pipeline thrash.

`choose` is a pure function of what is known, `choose_from` reads it from the drift history and a folder of mature days;
whoever calls them starts the pipeline and keeps the day in `trained` (the registry does).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from monitoring.drift_history import history


@dataclass(frozen=True)
class Policy:
    """What asks for a training and what forbids one."""

    max_age_days: int  # a model older than that is trained again
    drift_days: int  # verdicts of drift in a row that ask for a training
    cooldown_days: int  # least days between two trainings, whatever asks
    budget: int  # trainings in `budget_days` at most
    budget_days: int
    min_new_days: int  # mature days that the present model has not seen, or a training would learn nothing


@dataclass(frozen=True)
class Choice:
    """Whether to train today, and why or why not."""

    train: bool
    why: str


def choose(
    policy: Policy,
    today: date,
    trained: Sequence[date],
    verdicts: Sequence[str],
    new_days: int,
    labels_late: bool = False,
    experiment_running: bool = False,
) -> Choice:
    """Decide on a training.

    Args:
        policy: the rules.
        today: the day of the decision.
        trained: days of the trainings so far, oldest first.
        verdicts: verdicts of the drift comparisons since the last training, oldest first: quiet, warn or drift.
        new_days: mature days since the newest one that the present model has seen.
        labels_late: the label feed is late, so the newest days would be learned as negatives.
        experiment_running: the candidate is before users; another one would change what is measured.
    """
    age = (today - trained[-1]).days if trained else None
    run = next((n for n, verdict in enumerate(reversed(verdicts)) if verdict != "drift"), len(verdicts))
    if age is None:
        asked = "no model was trained yet"
    elif run >= policy.drift_days:
        asked = f"drift in the last {run} comparisons"
    elif age >= policy.max_age_days:
        asked = f"the model is {age} days old"
    else:
        return Choice(False, f"nothing asks for it: {age} days old, drift in the last {run} comparisons")
    spent = sum(day > today - timedelta(days=policy.budget_days) for day in trained)
    refusals = (
        (labels_late, "the label feed is late"),
        (experiment_running, "an experiment is running"),
        (age is not None and age < policy.cooldown_days, f"the last training was {age} days ago"),
        (spent >= policy.budget, f"{spent} trainings in {policy.budget_days} days are the budget: people must look"),
        (new_days < policy.min_new_days, f"only {new_days} new mature days"),
    )
    for refused, why in refusals:
        if refused:
            return Choice(False, f"{asked}, but {why}")
    return Choice(True, asked)


def choose_from(
    policy: Policy,
    today: date,
    trained: Sequence[date],
    compared: Path,
    days: Path,
    window_days: float,
    experiment_running: bool = False,
) -> Choice:
    """Decide on a training from folders.

    Args:
        policy: the rules.
        today: the day of the decision.
        trained: days of the trainings so far, oldest first.
        compared: the drift history (`drift_history.keep`); its newest entry says whether labels are late.
        days: log folder of mature days (`next_day.write_next_days`).
        window_days: longest attribution window; days later than that before the last training were not mature then,
            so the present model has not seen them.
        experiment_running: the candidate is before users.
    """
    entries = history(compared)
    since = trained[-1] if trained else None
    verdicts = [e["verdict"] for e in entries if since is None or e["windows"]["current"][1] > str(since)]
    ready = sorted(path.name.removeprefix("day=") for path in (Path(days) / "requests").glob("day=*"))
    seen = str(since - timedelta(days=window_days) - timedelta(days=1)) if since else ""
    late = bool(entries and entries[-1]["late_labels"])
    return choose(policy, today, trained, verdicts, sum(day > seen for day in ready), late, experiment_running)
