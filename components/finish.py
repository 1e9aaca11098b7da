"""Exit handler: however the run ended, its outcome is on record, on a page, and told."""

from kfp import dsl

from components.image import step


@step
def finish(seed: int, notify: str, runs: str, run_id: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Record the outcome of the run.

    Args:
        seed: seed of the run.
        notify: section `notify` of the configuration, as JSON.
        runs: folder of all runs.
        run_id: the run, which names its folder.
        status: given by the pipeline: state and error of the last task.
    """
    from pathlib import Path

    from uniscale.config import config_from_sections
    from uniscale.outcome import record_outcome

    config = config_from_sections(seed, notify=notify).notify
    outcome = record_outcome(config, Path(runs), run_id, status.state, status.error_message or "")
    said = ": ".join(filter(None, (outcome["state"], outcome["step"] and f"step {outcome['step']}", outcome["error"])))
    print(f"finish: run {run_id} {said}")
    if outcome["notified"]:
        print(f"finish: not told: {outcome['notified']}")
