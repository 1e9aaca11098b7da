"""Step: one summary of the run from what its steps wrote."""

from kfp import dsl

from components.image import step


@step
def summary(
    runs: str,
    run_id: str,
    verdict: str,
    rows: dsl.Input[dsl.Dataset],
    clean: dsl.Input[dsl.Dataset],
    measured: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    checked: dsl.Input[dsl.Artifact],
    drifted: dsl.Input[dsl.Artifact],
    result: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Gather numbers and pages into the run's folder.

    Args:
        runs: folder of all runs, in which this one keeps its summary and pages for people.
        run_id: the run, which names its folder.
        verdict: what the gate decided.
        rows: the samples folder.
        clean: validated logs with their report.
        measured: output of the evaluation.
        decision: output of the gate.
        checked: output of the smoke test.
        drifted: output of the drift step.
        result: output of the experiment.
        report: the summary page.
    """
    from pathlib import Path

    from uniscale.run_report import summarise

    artifacts = {
        "samples": rows.path,
        "ingest": clean.path,
        "evaluation": measured.path,
        "gate": decision.path,
        "smoke": checked.path,
        "drift": drifted.path,
        "experiment": result.path,
    }
    folders = {name: Path(path) for name, path in artifacts.items()}
    page = summarise(folders, verdict, Path(runs) / run_id)
    Path(report.path).write_text(page.read_text())
