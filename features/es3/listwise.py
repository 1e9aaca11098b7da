"""Stage 4, list-wise rows: a request's columns once, its candidates' as parallel lists, ids hashed (UniScale 3.5).

Every column is an expression of `uniscale.samples.SampleSpec`; real and pseudo requests go through the same ones.
"""

from pathlib import Path

import duckdb
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.catalogue import missing_value, raw_column
from features.context import SCENARIO_SEPARATOR
from uniscale.artifacts import read_json
from uniscale.samples import Feature, SampleSpec, row_schema

SPARK_TYPES = {
    pa.string(): "string",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
}


def candidate_lists(
    requests: DataFrame, labels: DataFrame, item_days: DataFrame, catalogue: DataFrame, spec: SampleSpec
) -> DataFrame:
    """The candidate-level columns of every request, as lists in the order of `items`.

    Args:
        requests: row_id, request_id, day, items (array<struct<item_id, sampling, position>>).
        labels: request_id, item_id, task, source; one row a positive label.
        item_days: item_id, day and the raw item columns.
        catalogue: item_id, index.
        spec: the features wanted.

    Returns:
        row_id and one list a candidate-level column of the row schema.
    """
    flat = requests.select("row_id", "day", F.posexplode("items").alias("ordinal", "sample")).select(
        "row_id", "day", "ordinal", "sample.*"
    )
    positives = (
        labels.join(requests.select("request_id", "row_id"), "request_id")
        .groupBy("row_id", "item_id")
        .agg(*(F.min(F.when(F.col("task") == task, F.col("source"))).alias(f"{task}_source") for task in spec.tasks))
    )
    # Hashed once an (item, day) and not once a sample; the item id hashes even where the day has no features.
    values = [_value(feature).alias(feature.name) for feature in spec.select("candidate")]
    known = item_days.join(catalogue.select("item_id", "index"), "item_id", "left").select(
        "item_id", "day", F.coalesce("index", F.lit(0)).alias("item"), *values
    )
    columns = ["item", "sampling", "position"]
    columns += [name for task in spec.tasks for name in (task, f"{task}_source")]
    columns += [feature.name for feature in spec.select("candidate")]
    labelled = {}
    for task in spec.tasks:
        source = F.col(f"{task}_source")
        labelled[task] = source.isNotNull().cast("tinyint")
        labelled[f"{task}_source"] = F.coalesce(source, F.lit(0)).cast("tinyint")
    rows = (
        flat.join(positives, ["row_id", "item_id"], "left")
        .join(known, ["item_id", "day"], "left")
        .withColumns(labelled)
    )
    listed = F.sort_array(F.collect_list(F.struct("ordinal", *columns)))
    return (
        rows.groupBy("row_id")
        .agg(listed.alias("listed"))
        .select("row_id", *(F.col(f"listed.{name}").alias(name) for name in columns))
    )


def assemble(
    requests: DataFrame, candidates: DataFrame, users: DataFrame, query_days: DataFrame, spec: SampleSpec
) -> DataFrame:
    """Complete list-wise rows with `day` and `domain`, the partitions of the output.

    Args:
        requests: request_id, row_id, day, domain, scenario, user_id, ts, query, query_rule, context columns.
        candidates: result of `candidate_lists`.
        users: row_id, the raw user and behaviour columns, behaviour_index, behaviour_ts (where users return).
        query_days: query, day, query_text and the raw query columns.
        spec: the features wanted.
    """
    # The wide columns meet last and all by row_id, so that each is shuffled once.
    rows = requests.drop("items").join(query_days, ["query", "day"], "left").withColumns(_context())
    rows = rows.join(users, "row_id", "left").join(candidates, "row_id")
    for name, kind in (("behaviour_index", "int"), ("behaviour_ts", "bigint"), ("query_text", "float")):
        if name not in rows.columns:
            rows = rows.withColumn(name, F.lit(None))
        rows = rows.withColumn(name, F.coalesce(name, F.array()).cast(f"array<{kind}>"))
    rows = rows.withColumns(
        {
            "domain_index": _position("domain", spec.domains),
            "scenarios": F.filter(
                F.transform("scenario", lambda name: _position(name, spec.scenarios)), lambda i: i >= 0
            ),
        }
    )
    values = {feature.name: _value(feature) for feature in (*spec.select("request"), *spec.select("behaviour"))}
    chosen = [
        values.get(field.name, F.col(field.name)).cast(_spark_type(field.type)).alias(field.name)
        for field in row_schema(spec)
    ]
    rows = rows.select(*chosen, "day", "domain")
    # Spark would write "never null" into the files wherever it can prove it, and the contract does not say so: the
    # union with no rows of the contract's own schema takes the wider of both.
    contract = ", ".join(f"`{field.name}` {_spark_type(field.type)}" for field in row_schema(spec))
    return rows.sparkSession.createDataFrame([], f"{contract}, day date, domain string").unionByName(rows)


def write_rows(rows: DataFrame, out: Path) -> None:
    """Write `day=…/domain=…/*.parquet` (zstd), sorted by time: alike requests compress, and bytes are repeatable."""
    (
        rows.hint("rebalance", F.col("day"), F.col("domain"))
        .sortWithinPartitions("day", "domain", "ts", "request_id")
        .write.partitionBy("day", "domain")
        .parquet(str(out))
    )


def flat(samples: Path, out: Path) -> int:
    """Write the rows of a samples folder as one flat Parquet file (zstd), a row a candidate; returns its bytes.

    Behaviours stay lists and request-level columns repeat: that is what the list-wise form saves.
    """
    spec = SampleSpec.from_json(read_json(samples / "spec.json"))
    repeated = ["item", "sampling", "position", *(n for task in spec.tasks for n in (task, f"{task}_source"))]
    repeated += [feature.name for feature in spec.select("candidate")]
    columns = [
        f'unnest("{field.name}") AS "{field.name}"' if field.name in repeated else f'"{field.name}"'
        for field in row_schema(spec)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    source, target = (str(path).replace("'", "''") for path in (samples / "rows" / "*" / "*" / "*.parquet", out))
    duckdb.execute(f"COPY (SELECT {', '.join(columns)} FROM read_parquet('{source}')) TO '{target}' (COMPRESSION zstd)")
    return out.stat().st_size


def _value(feature: Feature) -> Column:
    """A feature's value from its raw column: ids hashed, 0 for null; numbers as they are, or what a missing one is."""
    raw = F.col(raw_column(feature))
    if feature.level == "behaviour":
        return F.transform(F.coalesce(raw, F.array().cast("array<string>")), _hashed)
    if feature.kind == "id":
        return _hashed(raw)
    return F.coalesce(raw, F.lit(missing_value(feature))).cast("float")


def _hashed(text: Column) -> Column:
    return F.when(text.isNotNull(), F.xxhash64(text)).otherwise(F.lit(0).cast("bigint"))


def _context() -> dict[str, Column]:
    """The definitions of `features.context`, in Spark."""
    return {
        "context_hour": F.hour("ts").cast("string"),
        "context_weekday": F.weekday("ts").cast("string"),
        "context_scenario": F.array_join(F.sort_array("scenario"), SCENARIO_SEPARATOR),
    }


def _position(value: str | Column, names: tuple[str, ...]) -> Column:
    """Index of a value in `names`, -1 where it is not one of them."""
    known = F.array(*(F.lit(name) for name in names))
    return (F.array_position(known, F.col(value) if isinstance(value, str) else value) - 1).cast("tinyint")


def _spark_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"array<{SPARK_TYPES[kind.value_type]}>"
    return "timestamp" if pa.types.is_timestamp(kind) else SPARK_TYPES[kind]
