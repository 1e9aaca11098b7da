"""Exit handler: however the run ended, its outcome is on record."""

from kfp import dsl

from components.image import step


@step
def finish(runs: str, run_id: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Write the outcome of the run.

    Args:
        runs: folder of all runs.
        run_id: the run, which names its folder.
        status: given by the pipeline: state and error of the last task.
    """
    from pathlib import Path

    from uniscale.artifacts import write_json

    outcome = {"run": run_id, "state": status.state, "error": status.error_message}
    write_json(Path(runs) / run_id / "outcome.json", outcome)
    print(f"run {run_id}: {status.state} {status.error_message or ''}".rstrip())
