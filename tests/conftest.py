"""Shared by all tests: telemetry off before a dependency is imported, one Spark session and one set of MLflow's
migrations a process, GPU tests skipped."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uniscale.cli import ENVIRONMENT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

os.environ.update(ENVIRONMENT)
LONGEST_FIRST = (  # of the files that take a minute or more: the last that is begun leaves a core idle for its length
    "tests/es3/test_distribution.py",
    "tests/test_end_to_end.py",
    "tests/es3/test_increment.py",
    "tests/es3/test_build.py",
    "tests/pipelines/test_real_steps.py",
    "tests/serving/test_drills.py",
    "tests/es3/test_spark_store.py",
)


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkSession]":
    """The session of this process; who opens another one takes this JVM down with it."""
    from features.es3.session import spark_session
    from uniscale.sections import SparkConfig

    # On so few rows compiling a stage takes longer than interpreting it; test_distribution compares with compiled ones.
    settings = {"spark.sql.codegen.wholeStage": "false"}
    config = SparkConfig(master="local[2]", driver_memory="1g", shuffle_partitions=2, settings=settings)
    with spark_session(config, "-XX:+UseSerialGC -XX:TieredStopAtLevel=1") as session:
        yield session


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """`empty_registry(folder)`: the folder, made, with MLflow's tables in it, whose migrations take seconds."""
    from uniscale.registry import Registry

    made = tmp_path_factory.mktemp("registry")
    Registry(made)._call(lambda client: client.search_registered_models())

    def copy(folder: Path) -> Path:
        folder.mkdir()
        shutil.copy(made / "mlflow.db", folder)
        return folder

    return copy


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files; skip GPU tests where there is no device; torch is imported only if one was collected."""
    order = {file: place for place, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.location[0], len(order)))
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many GPU tests were not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("needs a CUDA device" in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f"GPU tests not run: {count}")
