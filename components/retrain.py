"""Step: whether it is time to train again."""

from kfp import dsl

from components.image import step


@step
def retrain(
    seed: int,
    policy: str,
    registry: str,
    name: str,
    book: str,
    history: str,
    days: list[str],
    drifted: dsl.Input[dsl.Artifact],
    choice: dsl.Output[dsl.Artifact],
) -> str:
    """Keep the drift in the history and ask the policy: `train` or `wait`.

    Args:
        seed: seed of the run.
        policy: section `retraining` of the configuration, as JSON.
        registry: URI of the model registry.
        name: registered model.
        book: folder of the experiments.
        history: folder of the history of drift.
        days: mature days.
        drifted: output of the drift step.
        choice: choice.json, with the facts that decided it.
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from monitoring.drift_history import keep
    from monitoring.experiment_book import ExperimentBook
    from monitoring.experiment_check import running
    from monitoring.retraining_facts import retrain
    from uniscale.artifacts import read_json, write_json
    from uniscale.config import config_from_sections
    from uniscale.registry import Registry

    rules, drift = (
        config_from_sections(seed, retraining=policy).retraining,
        read_json(Path(drifted.path) / "drift.json"),
    )
    keep(drift, Path(history))
    asked, late = bool(running(ExperimentBook(Path(book)))), bool(drift["late_labels"])
    store, today = Registry(registry, name), datetime.now(UTC).date()
    found = retrain(rules, store, Path(history), days, late, asked, today)
    write_json(Path(choice.path) / "choice.json", found)
    return "train" if found["train"] else "wait"
