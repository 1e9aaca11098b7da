"""Step: the days that a backfill goes over."""

from kfp import dsl

from components.image import step


@step
def days(first: str, last: str, clean: dsl.Input[dsl.Dataset]) -> list[str]:
    """Name the days with requests.

    Args:
        first: first day, ISO; empty for the newest one of the log.
        last: last day, likewise.
        clean: validated logs.
    """
    from pathlib import Path

    from features.log_days import days_between

    return days_between(Path(clean.path), first, last)
