"""Stage 1, intra-domain samples: what a search request showed, and a uniform draw of what it did not (UniScale 3.3.1).

The draw is a keyed hash of (request, seed), so the same data and seed give the same samples on any number of
partitions. Positions of the candidate list are drawn with replacement and repeats and exposed items rejected, which
leaves a uniform draw without replacement; the few requests where too little remains sort by a hash instead.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from uniscale.samples import Sampling

DRAWS = 3  # positions drawn for each unexposed sample wanted, before rejection


def exposed_lists(requests: DataFrame, exposures: DataFrame) -> DataFrame:
    """Requests that showed something, with `items`: array<struct<item_id, sampling, position>> in shown order."""
    shown = (
        exposures.join(requests.select("request_id"), "request_id", "left_semi")
        .groupBy("request_id")
        .agg(
            F.sort_array(
                F.collect_list(F.struct(F.coalesce("position", F.lit(0)).cast("smallint").alias("position"), "item_id"))
            ).alias("shown")
        )
    )
    items = F.transform("shown", lambda x: _sample(x["item_id"], Sampling.EXPOSED, x["position"]))
    return requests.join(shown, "request_id").withColumn("items", items).drop("shown")


def add_unexposed(lists: DataFrame, candidates: DataFrame, per_exposed: int, seed: int) -> DataFrame:
    """Append `per_exposed` times as many unexposed candidates as a request has exposed items, or all there are.

    Args:
        lists: result of `exposed_lists`.
        candidates: request_id, item_ids (the full candidate list; repeats count once).
        per_exposed: unexposed samples an exposed one; 0 adds none.
        seed: of the draw.

    Returns:
        `lists` with longer `items`, and `shortage`: how many the candidate list was short of.
    """
    if per_exposed == 0:
        return lists.withColumn("shortage", F.lit(0))
    wanted = F.size("items") * per_exposed
    exposed = F.transform("items", lambda x: x["item_id"])
    pool = candidates.select("request_id", F.array_distinct("item_ids").alias("pool"))
    drawn = F.transform(
        F.sequence(F.lit(1), F.col("wanted") * DRAWS),
        lambda i: F.get("pool", F.pmod(F.xxhash64("request_id", i, F.lit(seed)), F.size("pool")).cast("int")),
    )
    rejected = F.slice(F.array_except(drawn, F.col("exposed")), 1, F.col("wanted"))
    shuffled = F.sort_array(
        F.transform(
            F.array_except("pool", "exposed"),
            lambda item: F.struct(F.xxhash64("request_id", item, F.lit(seed)).alias("key"), item.alias("item_id")),
        )
    )
    by_hash = F.transform(F.slice(shuffled, 1, F.col("wanted")), lambda x: x["item_id"])
    enough = F.size("rejected") >= F.col("wanted")
    unexposed = F.coalesce(F.when(enough, F.col("rejected")).otherwise(by_hash), F.array().cast("array<string>"))
    return (
        lists.join(pool, "request_id", "left")
        .withColumns({"wanted": wanted, "exposed": exposed})
        .withColumn("rejected", F.when(F.size("pool") > 0, rejected))
        .withColumn("unexposed", unexposed)
        .withColumn("shortage", F.col("wanted") - F.size("unexposed"))
        .withColumn(
            "items",
            F.concat("items", F.transform("unexposed", lambda x: _sample(x, Sampling.UNEXPOSED, F.lit(0)))),
        )
        .drop("pool", "wanted", "exposed", "rejected", "unexposed")
    )


def _sample(item, sampling: Sampling, position):  # type: ignore[no-untyped-def]
    return F.struct(
        item.alias("item_id"),
        F.lit(int(sampling)).cast("tinyint").alias("sampling"),
        position.cast("smallint").alias("position"),
    )
