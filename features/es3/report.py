"""What ES3 made of the logs: Table 1 of UniScale, where labels came from, and what was left out and why."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.es3.attribution import Rules
from features.es3.tables import on_days
from features.splits import Splits
from features.sql import connect, text
from uniscale.artifacts import content_hash, read_json
from uniscale.logs import LogDescription
from uniscale.samples import LabelSource, QueryRule, SampleSpec, Sampling, row_schema
from uniscale.sections import SamplesConfig

MEMORY_LIMIT = "1GB"
STAGES = ("search-exposed", "+ unexposed expansion", "+ label attribution", "+ searchification")


@dataclass(frozen=True)
class Counted:
    """What a build found: stages skipped with the reason, requests in the log by day, counts of each written day."""

    skipped: dict[str, str]
    rules: Rules
    logged: dict[str, int]
    days: dict[str, dict[str, Any]]  # "rows" by domain, "events", "searches" and, unless stage 3 was skipped, its own


def skipped_stages(description: LogDescription, config: SamplesConfig) -> dict[str, str]:
    """Stages that a source cannot support or a configuration switches off, with the reason."""
    reasons = {}
    if not description.has_candidates:
        reasons["unexposed expansion"] = "the source does not know the unexposed part of the candidate list"
    elif config.unexposed_per_exposed == 0:
        reasons["unexposed expansion"] = "samples.unexposed_per_exposed is 0"
    if len(description.domains) == 1:
        reasons["cross-domain attribution"] = reasons["searchification"] = "the source has a single domain"
    elif not (description.has_text and description.has_embeddings):
        lacks = [name for name in ("text", "embeddings") if not getattr(description, f"has_{name}")]
        reasons["searchification"] = f"the source has no {' and no '.join(lacks)}"
    return reasons


def row_counts(rows: pa.RecordBatch, tasks: Sequence[str]) -> dict[str, int]:
    """Counts of list-wise rows: "requests", "samples", one a Sampling, one a task and LabelSource, one a QueryRule.

    Counts of 0 are left out.
    """
    counts = {"requests": rows.num_rows, "samples": len(rows["item"].flatten())}
    kinds: dict[str, tuple[type[IntEnum], str]] = {"sampling": (Sampling, ""), "query_rule": (QueryRule, "query.")}
    kinds |= {f"{task}_source": (LabelSource, f"{task}.") for task in tasks}
    for column, (kind, prefix) in kinds.items():
        values = rows[column].flatten() if pa.types.is_list(rows[column].type) else rows[column]
        found = zip(*np.unique(values.to_numpy(), return_counts=True), strict=True)
        counts |= {prefix + kind(value).name.lower(): int(n) for value, n in found}
    return {name: n for name, n in counts.items() if n and not name.endswith(".none")}


def summed(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Nested counts added up key by key."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = (
                summed([total.get(name, {}), value]) if isinstance(value, dict) else total.get(name, 0) + value
            )
    return total


def table_1(counts: dict[str, dict[str, int]], target: str, primary: str) -> list[dict[str, Any]]:
    """Table 1 from the counts of one split: requests, samples and positives of the primary task after each stage.

    Each stage includes the ones before it; multipliers are relative to the first. Positives of the first two stages
    are those of the target domain itself, as ranking models are trained without ES3.
    """
    search = counts.get(target, {})
    own = search.get(f"{primary}.in_domain", 0)
    exposed, every = search.get("exposed", 0), search.get("samples", 0)
    attributed = sum(search.get(f"{primary}.{source.name.lower()}", 0) for source in LabelSource if source)
    other = [counts[domain] for domain in counts if domain != target]
    requests = search.get("requests", 0)
    stages = (
        (requests, exposed, own),
        (requests, every, own),
        (requests, every, attributed),
        (
            requests + sum(c["requests"] for c in other),
            every + sum(c["samples"] for c in other),
            attributed + sum(c.get(f"{primary}.pseudo", 0) for c in other),
        ),
    )
    base = stages[0]
    return [
        {
            "stage": name,
            "requests": values[0],
            "samples": values[1],
            "click_positives": values[2],
            **{
                f"{measure}_x": round(value / first, 3) if first else None
                for measure, value, first in zip(("requests", "samples", "click_positives"), values, base, strict=True)
            },
        }
        for name, values in zip(STAGES, stages, strict=True)
    ]


def count_events(
    events: DataFrame, landings: DataFrame, days: Sequence[date], rules: Rules
) -> dict[str, dict[str, Any]]:
    """Where the events of these days went, by task, in and outside the target domain.

    The sources and `unattributed` add up to `events`. An event may have landed on a sample of another day.

    Args:
        events: result of `attribution.task_events`.
        landings: event_id, task, request_id, item_id, at, source, of search and pseudo samples together.
        days: the days that count.
        rules: tasks.

    Returns:
        {day: {task: {"in_domain" | "cross_domain": {"events", one count a LabelSource, "unattributed"}, "absorbed"}}},
        where absorbed events landed on a sample that another event had made positive.
    """
    # The event that makes a sample positive is the earliest of the best source; the rest are absorbed.
    best = Window.partitionBy("task", "request_id", "item_id").orderBy("source", "at", "event_id")
    landed = landings.select("event_id", "task", "source", (F.row_number().over(best) > 1).alias("absorbed"))
    joined = on_days(events, days).join(landed, ["event_id", "task"], "left")
    level = F.coalesce("source", F.lit(0)).alias("source")
    table = joined.groupBy("day", "task", "own", level).agg(
        F.count("*").alias("n"), F.count_if("absorbed").alias("absorbed")
    )
    result = {day.isoformat(): no_events(rules) for day in days}
    for row in table.collect():  # days × tasks × levels rows
        task = result[row["day"].isoformat()][row["task"]]
        side = task["in_domain" if row["own"] else "cross_domain"]
        side["events"] += row["n"]
        side[LabelSource(row["source"]).name.lower() if row["source"] else "unattributed"] = row["n"]
        task["absorbed"] += row["absorbed"]
    return result


def no_events(rules: Rules) -> dict[str, Any]:
    """What `count_events` says of a day without events."""
    return {task: {"in_domain": {"events": 0}, "cross_domain": {"events": 0}, "absorbed": 0} for task in rules.tasks}


def count_logged(logs: Path, target: str) -> dict[str, int]:
    """Requests of the target domain in a log folder, by day."""
    files = text(logs / "requests" / "*" / "*.parquet")
    with tempfile.TemporaryDirectory(prefix="uniscale-logged-") as spill, connect(Path(spill), MEMORY_LIMIT) as counted:
        return dict(
            counted.execute(f"""
                SELECT CAST(day AS VARCHAR), count(*) FROM read_parquet({files}, hive_partitioning = true)
                WHERE domain = {text(target)} GROUP BY 1""").fetchall()
        )


def count_searches(search: DataFrame, days: Sequence[date]) -> dict[str, dict[str, int]]:
    """Written search requests by day, and how many unexposed candidates their lists were short of.

    Args:
        search: result of stage 1.
        days: the days that are written.
    """
    return _by_day(on_days(search, days), {"written": F.count("*"), "unexposed_short": F.sum("shortage")})


def count_pseudo(pseudo: DataFrame, days: Sequence[date]) -> dict[str, dict[str, int]]:
    """What became of the clicks of stage 3, by day: pseudo-requests by query rule, and what they lack.

    Args:
        pseudo: result of `queries.choose`.
        days: the days that are written.
    """
    placed = F.col("placed")
    measures = {
        "clicks": F.count("*") + F.sum("repeats"),
        "repeated": F.sum("repeats"),
        "without_context": F.count_if(~placed),
        "without_query": F.count_if(placed & F.col("query").isNull()),
        "without_similar_negative": F.count_if(placed & F.col("query").isNotNull() & (F.size("items") == 1)),
    }
    for rule in list(QueryRule)[1:]:
        measures[rule.name.lower()] = F.count_if(placed & (F.col("query_rule") == int(rule)))
    none = dict.fromkeys(measures, 0)
    found = _by_day(on_days(pseudo, days), measures)
    return {day.isoformat(): found.get(day.isoformat(), none) for day in days}


def _by_day(frame: DataFrame, measures: dict[str, Column]) -> dict[str, dict[str, int]]:
    table = frame.groupBy("day").agg(*(measure.alias(name) for name, measure in measures.items()))
    return {row["day"].isoformat(): {name: int(row[name]) for name in measures} for row in table.collect()}


def search_requests(logged: dict[str, int], days: dict[str, dict[str, Any]], splits: Splits) -> dict[str, int]:
    """Requests of the target domain: how many the log has, how many are written, and why the others are not.

    Args:
        logged: result of `count_logged`.
        days: counts of the days of the splits.
        splits: the days that are written.
    """
    train, valid = splits.as_json()["train"][0], splits.as_json()["valid"][1]
    mature = sum(logged.get(day, 0) for day in days)
    found = summed([{"written": 0, "unexposed_short": 0}, *(counts["searches"] for counts in days.values())])
    return {
        "logged": sum(logged.values()),
        "warm_up": sum(n for day, n in logged.items() if day < train),
        "immature": sum(n for day, n in logged.items() if day > valid and day not in days),
        "without_exposures": mature - found["written"],
        **found,
    }


def manifest(
    out: Path,
    logs: Path,
    features: Path,
    seed: int,
    splits: Splits,
    done: Counted,
) -> dict[str, Any]:
    """The manifest of a written samples folder; Table 1 counts its training split."""
    rules, days, skipped = done.rules, done.days, done.skipped
    report_of_ingest = logs / "report.json"
    rows = {
        name: summed(days[day.isoformat()]["rows"] for day in splits.days_of(name))
        for name in ("train", "valid", "test")
    }
    pseudo = {"searchification": summed(day["searchification"] for day in days.values() if "searchification" in day)}
    return {
        "splits": splits.as_json(),
        "label_tail_days": splits.tail_days,
        "seed": seed,
        "table1_of": "train",
        "table1": table_1(rows["train"], rules.target, rules.primary),
        "skipped": [{"stage": stage, "reason": reason} for stage, reason in skipped.items()],
        **({} if "searchification" in skipped else pseudo),
        "events": summed([no_events(rules), *(day["events"] for day in days.values())]),
        "search_requests": search_requests(done.logged, days, splits),
        "rows": rows,
        "schema_hash": schema_hash(SampleSpec.load(out)),
        "inputs": {"logs": content_hash(logs), "features": content_hash(features / "tables")},
        "listwise_bytes": sum(file.stat().st_size for file in (out / "rows").rglob("*.parquet")),
        "quarantine": read_json(report_of_ingest) if report_of_ingest.exists() else None,
    }


def schema_hash(spec: SampleSpec) -> str:
    """Hash of the names and types of the rows' columns: 16 hex digits."""
    fields = [[field.name, str(field.type)] for field in row_schema(spec)]
    return hashlib.blake2b(json.dumps(fields).encode(), digest_size=8).hexdigest()
