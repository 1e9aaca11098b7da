"""Step: every running experiment analysed, and rolled back where its analysis says so."""

from kfp import dsl

from components.image import step


@step
def check(
    book: str,
    serving_log: str,
    live_logs: str,
    service: str,
    registry: str,
    name: str,
    found: dsl.Output[dsl.Artifact],
) -> None:
    """Check the experiments of a book.

    Args:
        book: folder of the experiments.
        serving_log: folder of the serving log.
        live_logs: log folder of the same days.
        service: URL of the service whose users are split; its key is read from UNISCALE_API_KEY.
        registry: URI of the model registry, whose champion a roll-back unseats.
        name: registered model.
        found: experiments.json.
    """
    import os
    from datetime import UTC, datetime
    from pathlib import Path

    from monitoring.experiment_book import ExperimentBook
    from monitoring.experiment_check import check_running
    from monitoring.rollback import HttpTraffic
    from uniscale.artifacts import write_json
    from uniscale.registry import Registry

    traffic = HttpTraffic(service, os.environ.get("UNISCALE_API_KEY"))
    data, store = (Path(serving_log), Path(live_logs)), Registry(registry, name)
    verdicts = check_running(ExperimentBook(Path(book)), data, traffic, store, datetime.now(UTC))
    write_json(Path(found.path) / "experiments.json", verdicts)
