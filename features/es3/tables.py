"""The log tables as Spark DataFrames: the columns this job needs, with their types stated, pruned by day."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

COLUMNS = {
    "requests": "request_id string, domain string, scenario array<string>, user_id string, ts timestamp, query string",
    "candidates": "request_id string, item_ids array<string>",
    "exposures": "request_id string, item_id string, position int",
    "events": "event_id string, user_id string, item_id string, ts timestamp, domain string, type string, "
    "request_id string",
}


@dataclass(frozen=True)
class Logs:
    """The log tables of a source. `candidates` is None where the source has none."""

    requests: DataFrame  # request_id, domain, scenario, user_id, ts, query, context_<name>, day
    exposures: DataFrame  # request_id, item_id, position, day
    events: DataFrame  # event_id, user_id, item_id, ts, domain, type, request_id, day
    candidates: DataFrame | None  # request_id, item_ids, day


def read_logs(spark: SparkSession, logs: Path, has_candidates: bool, context: Sequence[str]) -> Logs:
    """Open the tables of a log folder; the columns `context` of requests are kept as `context_<name>` strings."""

    def read(table: str) -> DataFrame:
        return spark.read.schema(f"{COLUMNS[table]}, day date").parquet(str(logs / table))

    requests = read("requests")
    if context:  # their types are the source's own, so Spark looks them up
        found = spark.read.parquet(str(logs / "requests"))
        strings = [F.col(name).cast("string").alias(f"context_{name}") for name in context]
        requests = found.select(*requests.columns, *strings)
    candidates = read("candidates") if has_candidates and (logs / "candidates").is_dir() else None
    return Logs(requests, read("exposures"), read("events"), candidates)


def on_days(frame: DataFrame, days: Iterable[date]) -> DataFrame:
    """Rows of some day partitions."""
    return frame.where(F.col("day").isin(sorted(days)))
