"""Step: the logs as they were known at the end of a day."""

from kfp import dsl

from components.image import step


@step
def cut(day: str, clean: dsl.Input[dsl.Dataset], known: dsl.Output[dsl.Dataset]) -> None:
    """Leave out what happened later.

    Args:
        day: ISO day.
        clean: validated logs.
        known: the logs up to that day.
    """
    from pathlib import Path

    from features.log_days import cut

    cut(Path(clean.path), day, Path(known.path))
