"""Step: one summary of what a monitoring run saw and decided."""

from kfp import dsl

from components.image import step


@step
def watched(
    runs: str,
    run_id: str,
    drifted: dsl.Input[dsl.Artifact],
    compared: dsl.Input[dsl.Artifact],
    found: dsl.Input[dsl.Artifact],
    choice: dsl.Input[dsl.Artifact],
) -> None:
    """Gather the outputs into the run's folder.

    Args:
        runs: folder of all runs, in which this one keeps its summary.
        run_id: the run, which names its folder.
        drifted: output of the drift step.
        compared: output of the skew step.
        found: output of the check of the experiments.
        choice: output of the retraining policy.
    """
    from pathlib import Path

    from monitoring.watch_report import facts, tables
    from uniscale.run_report import write_report

    seen = facts(*(Path(folder.path) for folder in (drifted, compared, found, choice)))
    write_report(Path(runs) / run_id, "Monitoring", tables(seen), seen)
