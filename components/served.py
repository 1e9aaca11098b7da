"""Step: what was served and what its users did become log days to train on, once their labels are mature."""

from kfp import dsl

from components.image import step


@step
def served(
    seed: int, samples: str, serving_log: str, live_logs: str, history_logs: str, now: str, raw: dsl.Output[dsl.Dataset]
) -> list[str]:
    """Write the mature days, after the history; gives them.

    Args:
        seed: seed of the run.
        samples: section `samples` of the configuration, as JSON (the attribution window).
        serving_log: folder of the serving log.
        live_logs: log folder of users, items, exposures and events since the service runs.
        history_logs: log folder of the days before; empty for none.
        now: the present, ISO 8601; empty for the clock.
        raw: the log folder.
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from features.log_days import extend
    from monitoring.next_day import write_next_days
    from uniscale.config import config_from_sections

    window = config_from_sections(seed, samples=samples).samples.conversion_window_days
    present, out = datetime.fromisoformat(now) if now else datetime.now(UTC), Path(raw.path)
    alone = out.with_name("alone") if history_logs else out
    found = write_next_days(Path(serving_log), Path(live_logs), alone, present, window)
    if history_logs:
        extend(Path(history_logs), alone, out)
    return found["days"]
