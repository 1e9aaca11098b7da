"""Hand-made tables in minutes after a fixed midnight."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from features.es3.attribution import Rules

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
