"""Step: what a backfill found, day by day."""

from kfp import dsl

from components.image import step


@step
def backfilled(
    history: str,
    runs: str,
    run_id: str,
    measured: dsl.Input[list[dsl.Artifact]],
    drifted: dsl.Input[list[dsl.Artifact]],
) -> None:
    """Put the days into the history of drift and sum them up.

    Args:
        history: folder of the history of drift.
        runs: folder of all runs, in which this one keeps its summary.
        run_id: the run, which names its folder.
        measured: outputs of the score step.
        drifted: outputs of the drift step, in the same order.
    """
    from pathlib import Path

    from monitoring.backfill import fill
    from uniscale.run_report import write_report

    evaluations, comparisons = ([Path(one.path) for one in of] for of in (measured, drifted))
    found = fill(evaluations, comparisons, Path(history))
    write_report(Path(runs) / run_id, "Backfill", found.tables, {"days": found.days})
