"""A small market whose samples are built once, and hand-made tables in minutes after a fixed midnight."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from features.es3.attribution import Rules
from features.es3.build import build_samples
from simulation.marketplace import write_logs
from uniscale.config import load_config

SETTINGS = [
    "simulation.users=150",
    "simulation.items=300",
    "simulation.days=14",
    "simulation.candidates=30",
    "features.text_dim=16",
    "features.windows_days=[1, 7]",
    "features.max_behaviours=8",
    "samples.warmup_days=2",
    "samples.valid_days=1",
    "samples.test_days=2",
    "samples.conversion_window_days=2",
]
CONFIG = load_config(overrides=SETTINGS)
MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60_000_000
RULES = Rules(
    target="search",
    tasks={"click": "click", "conversion": "purchase"},
    windows={"click": timedelta(minutes=100), "conversion": timedelta(minutes=1000)},
)
Frame = Callable[[list[tuple[Any, ...]], str], DataFrame]


def at(minute: float) -> int:
    """Microseconds since 1970 of a minute after midnight."""
    return (MIDNIGHT - EPOCH) // timedelta(microseconds=1) + round(minute * MINUTE)


def clock(minute: float) -> datetime:
    """The same as a timestamp."""
    return MIDNIGHT + timedelta(minutes=minute)


@pytest.fixture
def frame(spark: SparkSession) -> Frame:
    return lambda rows, schema: spark.createDataFrame(rows, schema)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the logs of a small market and their features, read only."""
    from features.build import build_features  # imports Feast, which takes seconds

    folder = tmp_path_factory.mktemp("market")
    write_logs(CONFIG.simulation, CONFIG.seed, folder / "logs")
    build_features(CONFIG, folder / "logs", folder / "features")
    return folder


@pytest.fixture(scope="session")
def manifest(market: Path, spark: SparkSession) -> dict[str, Any]:
    """The manifest of the market's samples, in its folder, as the threads of one process build them."""
    return build_samples(CONFIG, market / "logs", market / "features", market / "samples", spark)
