"""Step: the training that the retraining policy asks for, started on the logs as they are now."""

from kfp import dsl

from components.image import step


@step
def start(training: str, verb: list[str], kept: str, raw: dsl.Input[dsl.Dataset]) -> None:
    """Keep the logs and start.

    Args:
        training: the whole configuration of the training, as JSON.
        verb: words after `uniscale`; {config} stands for the file of the configuration.
        kept: folder of the logs that trainings read.
        raw: the log folder.
    """
    from pathlib import Path

    from monitoring.start_training import start_training

    start_training(training, Path(raw.path), Path(kept), verb)
