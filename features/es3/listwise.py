"""Stage 4, list-wise rows: a request's columns once, its candidates' as parallel lists, ids hashed (UniScale 3.5).

Every column is a feature of `uniscale.samples.SampleSpec`; real and pseudo requests go through the same code. The
requests arrive sorted and stay so: candidates are looked up in the tables of their day, and nothing is shuffled.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from features.catalogue import missing_value
from features.context import SCENARIO_SEPARATOR
from features.es3.days import read_day
from features.es3.inputs import like_lists
from features.es3.report import row_counts
from uniscale.samples import SampleSpec, row_schema


def labelled(requests: DataFrame, landings: DataFrame, tasks: Sequence[str]) -> DataFrame:
    """`requests` whose `items` also hold `<task>_source`: the best source of the events on that sample, 0 for none.

    Args:
        requests: request_id, items (array<struct<item_id, sampling, position>>) and whatever else.
        landings: request_id, item_id, task, source; one row an event.
        tasks: names of the tasks.
    """
    # A set, because a user may land any number of events on one sample: only (task, source) pairs remain.
    earned = landings.groupBy("request_id").agg(F.collect_set(F.struct("item_id", "task", "source")).alias("earned"))

    def source(item: Column, task: str) -> Column:
        own = F.filter("earned", lambda e: (e["item_id"] == item["item_id"]) & (e["task"] == task))
        best = F.array_min(F.transform(own, lambda e: e["source"]))
        return F.coalesce(best, F.lit(0)).cast("tinyint").alias(f"{task}_source")

    items = F.transform(
        "items",
        lambda item: F.struct(
            *(item[name].alias(name) for name in ("item_id", "sampling", "position")),
            *(source(item, task) for task in tasks),
        ),
    )
    return requests.join(earned, "request_id", "left").withColumn("items", items).drop("earned")


def request_rows(requests: DataFrame, spec: SampleSpec) -> DataFrame:
    """Requests with domain_index, scenarios and context columns, in the order of the output: by day, domain and time.

    Alike requests lie side by side in the files, so they compress, and bytes are repeatable.
    """
    scenarios = F.transform("scenario", lambda name: _position(name, spec.scenarios))
    derived = {
        "domain_index": _position(F.col("domain"), spec.domains),
        "scenarios": F.filter(scenarios, lambda index: index >= 0),
        # The definitions of `features.context`, in Spark.
        "context_hour": F.hour("ts").cast("string"),
        "context_weekday": F.weekday("ts").cast("string"),
        "context_scenario": F.array_join(F.sort_array("scenario"), SCENARIO_SEPARATOR),
    }
    return (
        requests.withColumns(derived)
        .hint("rebalance", F.col("day"), F.col("domain"))
        .sortWithinPartitions("day", "domain", "ts", "request_id")
    )


def write_rows(
    spark: SparkSession, requests: Path, item_days: Path, query_days: Path, spec: SampleSpec, out: Path
) -> dict[str, dict[str, dict[str, int]]]:
    """Write the list-wise rows of written requests as `day=…/domain=…/*.parquet`, in their order.

    Every row group is a task, whose worker reads, looks up and writes by itself: rows with dozens of lists cost more
    to pass through the JVM, element by element, than to make. A task's files have names of its own and appear whole,
    so one that is tried again replaces them with the same bytes.

    Args:
        spark: the session.
        requests: folder of `features.es3.retrieve.write_request_inputs`, in the order of `request_rows`.
        item_days: folder of `features.es3.retrieve.write_item_days`, which every worker reads.
        query_days: the same of `write_query_days`.
        spec: the features wanted.
        out: where the rows go.

    Returns:
        {day: {domain: `features.es3.report.row_counts`}} of what was written.
    """
    files = sorted(requests.glob("*.parquet"))
    groups = [(str(file), group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
    items, queries, target = str(item_days), str(query_days), str(out)

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for task in (task for batch in batches for task in batch["id"].to_pylist()):
            file, group = groups[task]
            rows = pq.ParquetFile(file).read_row_group(group).combine_chunks().to_batches()[0]
            for run, (day, domain, part) in enumerate(_partitions(rows)):
                made = list_rows(part, read_day(Path(items), day), read_day(Path(queries), day), spec)
                # Either may come twice: a row group can hold the end of one partition and the start of another.
                name = f"part-{task:05d}-{run:05d}.parquet"
                _write(made, Path(target) / f"day={day}" / f"domain={quote(domain)}" / name)
                found = row_counts(made, spec.tasks)
                columns = [[day] * len(found), [domain] * len(found), [*found], [*found.values()]]
                yield pa.RecordBatch.from_arrays(
                    [pa.array(column) for column in columns], ["day", "domain", "name", "n"]
                )

    tasks = spark.range(0, len(groups), 1, max(1, len(groups)))
    found = tasks.mapInArrow(write, "day string, domain string, name string, n long")
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for row in found.groupBy("day", "domain", "name").agg(F.sum("n").alias("n")).collect():  # days × domains × names
        counts.setdefault(row["day"], {}).setdefault(row["domain"], {})[row["name"]] = row["n"]
    return counts


def list_rows(requests: pa.RecordBatch, items: pa.Table, queries: pa.Table, spec: SampleSpec) -> pa.RecordBatch:
    """List-wise rows of R requests of one day.

    Args:
        requests: request-level columns and `items` (list<struct<item_id, sampling, position, <task>_source>>), R rows.
        items: item_id, item and the candidate-level inputs of the day; holds every candidate.
        queries: query, its inputs of the day and query_text; a request whose query is not there counts nothing.
        spec: the features wanted.

    Returns:
        R rows of `uniscale.samples.row_schema`.
    """
    lists = requests["items"]
    samples = lists.flatten()  # (N,)
    here = pc.index_in(pc.struct_field(samples, "item_id"), value_set=items["item_id"].combine_chunks())
    candidates = {name: items[name].combine_chunks().take(here) for name in items.column_names if name != "item_id"}
    candidates |= {name: pc.struct_field(samples, name) for name in ("sampling", "position")}
    for task in spec.tasks:
        source = pc.struct_field(samples, f"{task}_source")
        candidates |= {f"{task}_source": source, task: pc.not_equal(source, 0).cast(pa.int8())}
    asked = pc.index_in(requests["query"], value_set=queries["query"].combine_chunks())
    of_query = {name: queries[name].combine_chunks().take(asked) for name in queries.column_names if name != "query"}
    for feature in spec.select("request"):
        if feature.name in of_query and missing_value(feature) is not None:
            of_query[feature.name] = of_query[feature.name].fill_null(missing_value(feature))
    of_query["query_text"] = like_lists(of_query["query_text"], of_query["query_text"].flatten())
    columns = {name: like_lists(lists, values) for name, values in candidates.items()} | of_query
    schema = row_schema(spec)
    chosen = [columns[name] if name in columns else requests[name] for name in schema.names]
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(chosen, schema, strict=True)], schema=schema
    )


def _partitions(rows: pa.RecordBatch) -> Iterator[tuple[str, str, pa.RecordBatch]]:
    """Runs of rows of one day and domain, with both."""
    keys = [column.dictionary_encode().indices.to_numpy() for column in (rows["day"], rows["domain"])]
    changes = np.nonzero(np.diff(keys[0]) | np.diff(keys[1]))[0] + 1
    for start, end in pairwise([0, *changes.tolist(), rows.num_rows]):
        if end > start:
            yield rows["day"][start].as_py().isoformat(), rows["domain"][start].as_py(), rows.slice(start, end - start)


def _write(rows: pa.RecordBatch, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    pq.write_table(pa.Table.from_batches([rows]), partial, compression="zstd", compression_level=6)
    os.replace(partial, path)


def _position(value: Column, names: tuple[str, ...]) -> Column:
    """Index of a value in `names`, -1 where it is not one of them."""
    return (F.array_position(F.array(*(F.lit(name) for name in names)), value) - 1).cast("tinyint")
