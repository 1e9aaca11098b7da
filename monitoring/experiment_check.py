"""A look at running experiments: each is analysed since its last change of weights, and rolled back if that says so."""

from datetime import datetime
from pathlib import Path
from typing import Any

from monitoring.experiment import analyse_lists, analyse_logs
from monitoring.experiment_book import ExperimentBook
from monitoring.experiment_index import write_index
from monitoring.rollback import Traffic, act_on
from uniscale.registry import Registry


def running(book: ExperimentBook) -> list[str]:
    """Experiments that are before users."""
    return [name for name in book.names() if book.status(name) == "running"]


def check_experiment(
    book: ExperimentBook,
    name: str,
    data: tuple[Path, Path],
    traffic: Traffic,
    registry: Registry | None,
    at: datetime,
    spark: Any = None,
) -> tuple[dict[str, Any], Path | None]:
    """Analyse one experiment and act on it; its pages go into the book.

    Args:
        book: where the experiment is kept.
        name: the experiment.
        data: folder of the serving log, and log folder of the same days.
        traffic: the service whose users are split.
        registry: whose champion a roll-back unseats; None leaves it.
        at: the present.
        spark: a SparkSession that computes the tables of users and requests; DuckDB does without one.

    Returns:
        The analysis, and the post-mortem of a roll-back, None without one.

    Raises:
        DataError: no such experiment, or a log is missing.
        ServingError: the service did not confirm a roll-back.
    """
    definition = book.definition(name)
    weights, since = book.present(name)
    present, out = definition.model_copy(update={"weights": weights}), book.folder / name / "analysis"
    if present.mode == "interleave":
        result = analyse_lists(present, *data, out, since)
    else:
        result = analyse_logs(present, *data, out, since=since, spark=spark)
    post_mortem = act_on(book, name, result, traffic, registry, at)
    write_index(book)
    return result, post_mortem


def check_running(
    book: ExperimentBook, data: tuple[Path, Path], traffic: Traffic, registry: Registry | None, at: datetime
) -> dict[str, dict[str, Any]]:
    """`check_experiment` for every running experiment: name to verdict, reason, and whether it was rolled back."""
    found = {}
    for name in running(book):
        result, post_mortem = check_experiment(book, name, data, traffic, registry, at)
        found[name] = {"verdict": result["verdict"], "reason": result["reason"], "rolled_back": post_mortem is not None}
    return found
