"""What ES3 made of the logs: Table 1 of UniScale, where labels came from, and what was left out and why."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.es3.attribution import Rules
from features.splits import Splits
from uniscale.artifacts import content_hash, read_json
from uniscale.logs import LogDescription
from uniscale.samples import LabelSource, QueryRule, SampleSpec, Sampling, row_schema
from uniscale.sections import SamplesConfig

STAGES = ("search-exposed", "+ unexposed expansion", "+ label attribution", "+ searchification")


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


def split_of(splits: Splits) -> Column:
    """Name of the split that the column `day` belongs to, null for a day that no split holds."""
    return F.coalesce(
        *(
            F.when(F.col("day").between(*(F.lit(day) for day in getattr(splits, name))), F.lit(name))
            for name in ("train", "valid", "test")
        )
    )


def count_rows(rows: DataFrame, splits: Splits, rules: Rules) -> dict[str, Any]:
    """Counts of written rows, by split and domain, with samples and positives by kind.

    Returns:
        {split: {domain: {"requests", "samples", one count a Sampling, one a task and LabelSource, one a QueryRule}}};
        counts of 0 are left out.
    """

    def number(column: str, value: int) -> Column:
        return F.sum(F.size(F.filter(column, lambda x: x == value)))

    measures = {"requests": F.count("*"), "samples": F.sum(F.size("item"))}
    measures |= {kind.name.lower(): number("sampling", kind) for kind in Sampling}
    for task in rules.tasks:
        measures |= {f"{task}.{s.name.lower()}": number(f"{task}_source", s) for s in LabelSource if s}
    measures |= {f"query.{rule.name.lower()}": F.count_if(F.col("query_rule") == int(rule)) for rule in QueryRule}
    table = rows.groupBy(split_of(splits).alias("split"), "domain").agg(
        *(measure.alias(name.replace(".", "__")) for name, measure in measures.items())
    )
    counts: dict[str, Any] = {name: {} for name in ("train", "valid", "test")}
    for row in table.collect():  # splits × domains rows
        found = {name: int(row[name.replace(".", "__")]) for name in measures}
        counts[row["split"]][row["domain"]] = {name: value for name, value in found.items() if value}
    return counts


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


def count_events(events: DataFrame, landings: DataFrame, splits: Splits, rules: Rules) -> dict[str, Any]:
    """Where the events on the days of the splits went, by task, in and outside the target domain.

    The sources and `unattributed` add up to `events`. An event may have landed on a sample of another day.

    Args:
        events: result of `attribution.task_events`.
        landings: event_id, task, request_id, item_id, at, source, of search and pseudo samples together.
        splits: the days that count.
        rules: tasks.

    Returns:
        {task: {"in_domain" | "cross_domain": {"events", one count a LabelSource, "unattributed"}, "absorbed"}}, where
        absorbed events landed on a sample that another event had made positive.
    """
    # The event that makes a sample positive is the earliest of the best source; the rest are absorbed.
    best = Window.partitionBy("task", "request_id", "item_id").orderBy("source", "at", "event_id")
    landed = landings.select("event_id", "task", "source", (F.row_number().over(best) > 1).alias("absorbed"))
    joined = events.where(split_of(splits).isNotNull()).join(landed, ["event_id", "task"], "left")
    level = F.coalesce("source", F.lit(0)).alias("source")
    table = joined.groupBy("task", "own", level).agg(F.count("*").alias("n"), F.count_if("absorbed").alias("absorbed"))
    result: dict[str, Any] = {
        task: {"in_domain": {"events": 0}, "cross_domain": {"events": 0}, "absorbed": 0} for task in rules.tasks
    }
    for row in table.collect():  # tasks × levels rows
        side = result[row["task"]]["in_domain" if row["own"] else "cross_domain"]
        side["events"] += row["n"]
        side[LabelSource(row["source"]).name.lower() if row["source"] else "unattributed"] = row["n"]
        result[row["task"]]["absorbed"] += row["absorbed"]
    return result


def count_searches(requests: DataFrame, search: DataFrame, splits: Splits, rules: Rules) -> dict[str, int]:
    """Requests of the target domain: how many the log has, how many are written, and why the others are not.

    Args:
        requests: of the log, all domains.
        search: result of stage 1.
        splits: the days that are written.
        rules: the target domain.
    """
    day, split = F.col("day"), split_of(splits)
    row = (
        requests.where(F.col("domain") == rules.target)
        .agg(
            F.count("*").alias("logged"),
            F.count_if(day < F.lit(splits.train[0])).alias("warm_up"),
            F.count_if(split.isNull() & (day > F.lit(splits.valid[1]))).alias("immature"),
            F.count(split).alias("mature"),
        )
        .collect()[0]
    )
    kept = search.where(split.isNotNull()).agg(
        F.count("*").alias("written"), F.coalesce(F.sum("shortage"), F.lit(0)).alias("shortage")
    )
    written = kept.collect()[0]
    return {
        "logged": row["logged"],
        "warm_up": row["warm_up"],
        "immature": row["immature"],
        "without_exposures": row["mature"] - written["written"],
        "written": written["written"],
        "unexposed_short": written["shortage"],
    }


def count_pseudo(pseudo: DataFrame) -> dict[str, int]:
    """What became of the clicks of stage 3: pseudo-requests by query rule, and what they lack.

    Args:
        pseudo: result of `queries.choose`.
    """
    placed = F.col("placed")
    measures = {
        "clicks": F.count("*") + F.coalesce(F.sum("repeats"), F.lit(0)),
        "repeated": F.coalesce(F.sum("repeats"), F.lit(0)),
        "without_context": F.count_if(~placed),
        "without_query": F.count_if(placed & F.col("query").isNull()),
        "without_similar_negative": F.count_if(placed & F.col("query").isNotNull() & (F.size("items") == 1)),
    }
    for rule in list(QueryRule)[1:]:
        measures[rule.name.lower()] = F.count_if(placed & (F.col("query_rule") == int(rule)))
    row = pseudo.agg(*(measure.alias(name) for name, measure in measures.items())).collect()[0]
    return {name: int(row[name]) for name in measures}


def manifest(
    out: Path,
    logs: Path,
    features: Path,
    seed: int,
    splits: Splits,
    skipped: dict[str, str],
    rules: Rules,
    counts: dict[str, Any],
) -> dict[str, Any]:
    """The manifest of a written samples folder; Table 1 counts its training split."""
    report_of_ingest = logs / "report.json"
    schema = row_schema(SampleSpec.load(out))
    fields = [[field.name, str(field.type)] for field in schema]
    return {
        "splits": splits.as_json(),
        "label_tail_days": splits.tail_days,
        "seed": seed,
        "table1_of": "train",
        "table1": table_1(counts["rows"]["train"], rules.target, rules.primary),
        "skipped": [{"stage": stage, "reason": reason} for stage, reason in skipped.items()],
        **counts,
        "schema_hash": hashlib.blake2b(json.dumps(fields).encode(), digest_size=8).hexdigest(),
        "inputs": {"logs": content_hash(logs), "features": content_hash(features / "tables")},
        "listwise_bytes": sum(file.stat().st_size for file in (out / "rows").rglob("*.parquet")),
        "quarantine": read_json(report_of_ingest) if report_of_ingest.exists() else None,
    }
