"""Stage 3, cross-domain searchification: clicks outside search become pseudo-search requests (UniScale 3.3.2).

A click that no search sample earned becomes a request of its own, as of the time of the request it was made in: the
clicked item, and as negatives the unclicked items of that request that resemble it. Its query comes from
`features.es3.queries`. Nothing is padded: no similar item, no negative; no query, no pseudo-request.

A click that names no request is always a lone positive, so nothing may mark it: its context is that of the user's
last request in its domain within the window of a click, and where there is none there is no pseudo-request.
"""

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.es3.attribution import Rules, window_of
from uniscale.samples import LabelSource, Sampling


def unclaimed_clicks(
    events: DataFrame, landings: DataFrame, requests: DataFrame, rules: Rules, context: Sequence[str] = ()
) -> DataFrame:
    """Primary events outside the target domain that landed on no search sample, the first of each (request, item).

    Args:
        events: result of `attribution.task_events`.
        landings: all landings of stage 2.
        requests: request_id, domain, user_id, ts, scenario, the context columns.
        rules: domain, tasks and windows.
        context: names of the context columns.

    Returns:
        request_id ("pseudo:" and the event's id), event_id, event_request (null where the log names no request of
        that user), domain, scenario, user_id, ts (the original request's, else the click's own), asked (the same in
        microseconds), at (of the click), item_id, context columns, placed (whether scenario and context are known),
        repeats (of that click in the request).
    """
    clicks = events.where(~F.col("own") & (F.col("task") == rules.primary)).join(
        landings.select("event_id").distinct(), "event_id", "left_anti"
    )
    surroundings = F.struct("scenario", *context)
    origin = requests.select(
        F.col("request_id").alias("event_request"), "user_id", F.col("ts").alias("origin"), surroundings.alias("around")
    )
    found = (
        clicks.join(origin, ["event_request", "user_id"], "left")
        .withColumn("asked", F.coalesce(F.unix_micros("origin"), F.col("at")))
        .withColumn("event_request", F.when(F.col("origin").isNotNull(), F.col("event_request")))
    )
    made = requests.select(
        "user_id", "domain", F.unix_micros("ts").alias("at"), F.struct("ts", "request_id", surroundings.alias("around"))
    ).toDF("user_id", "domain", "at", "request")
    past = Window.partitionBy("user_id", "domain").orderBy("at").rangeBetween(Window.unboundedPreceding, 0)
    last, window = F.max("request").over(past), rules.micros(rules.primary)
    fresh = F.when(F.col("at") - F.unix_micros(last["ts"]) <= window, last["around"])
    placed = (
        found.unionByName(made, allowMissingColumns=True)
        .withColumn("around", F.coalesce("around", fresh))
        .where(F.col("event_id").isNotNull())
    )
    in_window = (F.col("at") - F.col("asked")).between(0, window)
    first = F.struct("at", "event_id", "event_request", "user_id", "asked", "domain", "around")
    group = F.coalesce("event_request", "event_id")
    return (
        placed.where(in_window)
        .groupBy(group.alias("group"), "item_id")
        .agg(F.min(first).alias("first"), (F.count("*") - 1).alias("repeats"))
        .select("item_id", "repeats", "first.*")
        .select("*", "around.*", F.col("around").isNotNull().alias("placed"))
        .withColumn("request_id", F.concat(F.lit("pseudo:"), F.col("event_id")))
        .withColumn("ts", F.timestamp_micros("asked"))
        .drop("around")
    )


def pseudo_lists(
    pseudo: DataFrame, exposures: DataFrame, events: DataFrame, vectors: DataFrame, most: int, floor: float
) -> DataFrame:
    """`pseudo` with `items`, as in stage 1: the positive, then the unclicked items of its request most like it.

    Args:
        pseudo: request_id, event_request, item_id and whatever else.
        exposures: request_id, item_id, position.
        events: result of `task_events`: what was clicked in a request is no negative of it.
        vectors: item_id, content (array<float>); zero vectors and missing items resemble nothing.
        most: negatives a pseudo-request, at most; ties go to the lesser item id.
        floor: least cosine of a negative to the positive.
    """
    clicked = events.select("event_request", F.col("item_id").alias("other")).distinct()
    shown = exposures.select(F.col("request_id").alias("event_request"), F.col("item_id").alias("other"), "position")
    positives = pseudo.join(vectors.withColumnRenamed("content", "own_content"), "item_id", "left").select(
        "request_id", "event_request", "item_id", "own_content"
    )
    pairs = (
        shown.join(positives, "event_request")
        .join(clicked.withColumn("clicked", F.lit(True)), ["event_request", "other"], "left")
        .join(vectors.withColumnRenamed("item_id", "other"), "other", "left")
        .withColumn("own", F.col("other") == F.col("item_id"))
        .withColumn("similarity", F.vector_cosine_similarity("content", "own_content"))
    )
    negative = F.col("clicked").isNull() & ~F.col("own") & (F.col("similarity") >= floor)
    ranked = F.struct(
        (-F.col("similarity")).alias("distance"), _sample("other", Sampling.PSEUDO_NEGATIVE).alias("sample")
    )
    found = pairs.groupBy("request_id").agg(
        F.min(F.when(F.col("own"), F.col("position"))).alias("position"),
        F.slice(F.sort_array(F.collect_list(F.when(negative, ranked))), 1, most).alias("negatives"),
    )
    positive = _sample("item_id", Sampling.PSEUDO_POSITIVE)
    others = F.coalesce(F.col("negatives.sample"), F.array())
    return (
        pseudo.join(found, "request_id", "left")
        .withColumn("items", F.concat(F.array(positive), others))
        .drop("negatives", "position")
    )


def _sample(item: str, sampling: Sampling) -> Column:
    return F.struct(
        F.col(item).alias("item_id"),
        F.lit(int(sampling)).cast("tinyint").alias("sampling"),
        F.coalesce("position", F.lit(0)).cast("smallint").alias("position"),
    )


def pseudo_clicks(pseudo: DataFrame, rules: Rules) -> DataFrame:
    """Landings of the clicks that pseudo-requests are made from: event_id, task, at, request_id, item_id, source."""
    source = F.lit(int(LabelSource.PSEUDO)).cast("tinyint")
    return pseudo.select(
        "event_id", F.lit(rules.primary).alias("task"), "at", "request_id", "item_id", source.alias("source")
    )


def pseudo_conversions(pseudo: DataFrame, events: DataFrame, landings: DataFrame, rules: Rules) -> DataFrame:
    """Landings of further tasks' events, credited to no search sample, on the user's latest pseudo-positive.

    The event follows the click and lies within its task's window of the pseudo-request. `pseudo` also holds the
    requests of days that are not written, so that no older one takes an event of theirs.

    Returns:
        event_id, task, at, request_id, item_id, source.
    """
    further = events.where(F.col("task") != rules.primary).join(
        landings.select("event_id", "task"), ["event_id", "task"], "left_anti"
    )
    clicks = pseudo.select("user_id", "item_id", "at", F.struct("asked", "request_id").alias("clicked"))
    walk = clicks.unionByName(further.select("user_id", "item_id", "at", "event_id", "task"), allowMissingColumns=True)
    past = Window.partitionBy("user_id", "item_id").orderBy("at").rangeBetween(Window.unboundedPreceding, 0)
    return (
        walk.withColumn("clicked", F.max("clicked").over(past))
        .where(F.col("event_id").isNotNull())
        .where(F.col("at") - F.col("clicked.asked") <= window_of("task", rules))
        .select(
            "event_id",
            "task",
            "at",
            "clicked.request_id",
            "item_id",
            F.lit(int(LabelSource.PSEUDO)).cast("tinyint").alias("source"),
        )
    )
