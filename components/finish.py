"""Exit handler: however the run ended, its outcome is on record."""

from kfp import dsl

from components.image import step


@step
def finish(run_folder: str, run_id: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Write the outcome of the run.

    Args:
        run_folder: the run's folder.
        run_id: the run.
        status: given by the pipeline: state and error of the last task.
    """
    from pathlib import Path

    from uniscale.artifacts import write_json

    outcome = {"run": run_id, "state": status.state, "error": status.error_message}
    write_json(Path(run_folder) / "outcome.json", outcome)
    print(f"run {run_id}: {status.state} {status.error_message or ''}".rstrip())
