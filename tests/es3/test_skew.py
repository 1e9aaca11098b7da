"""Users and items with very many events: the same answers as by hand, and no plan that explodes."""

import random

import pytest
from pyspark.sql import functions as F

from features.es3 import queries, searchify
from features.es3.attribution import attribute, bind_clicks, task_events
from tests.es3.conftest import MIDNIGHT, MINUTE, RULES, at
from uniscale.samples import LabelSource, Sampling

pytestmark = [pytest.mark.spark, pytest.mark.xdist_group("spark")]
MANY = 100_000


def test_a_user_with_very_many_events_on_one_item_of_one_request(spark):
    """Half are clicks elsewhere and half purchases, one a millisecond; a self-join of them would have 10¹⁰ rows."""
    samples = spark.createDataFrame(
        [("r", "u", "i", at(0), int(Sampling.EXPOSED))],
        "request_id string, user_id string, item_id string, asked long, sampling byte",
    )
    log = spark.range(MANY).select(
        F.col("id").cast("string").alias("event_id"),
        F.lit("u").alias("user_id"),
        F.lit("i").alias("item_id"),
        F.timestamp_micros(F.lit(at(0)) + F.col("id") * 1000).alias("ts"),
        F.lit("feed").alias("domain"),
        F.when(F.col("id") % 2 == 0, "click").otherwise("purchase").alias("type"),
        F.lit(None).cast("string").alias("request_id"),
        F.lit(MIDNIGHT.date()).alias("day"),
    )
    events = task_events(log, RULES)
    landings = attribute(samples, bind_clicks(samples, events, RULES), events, RULES)
    counts = {(row["task"], row["request_id"], row["source"]): row["count"] for row in
              landings.groupBy("task", "request_id", "source").count().collect()}  # fmt: skip
    assert counts == {(task, "r", LabelSource.EXPOSED): MANY // 2 for task in RULES.tasks}

    clicks = events.where("task = 'click'").select(
        F.concat(F.lit("pseudo:"), "event_id").alias("request_id"),
        "user_id",
        "item_id",
        "at",
        F.col("at").alias("asked"),
    )
    nothing = landings.limit(0)
    found = searchify.pseudo_conversions(clicks, events, nothing, RULES)
    previous = F.concat(F.lit("pseudo:"), (F.col("event_id").cast("long") - 1).cast("string"))
    assert found.count() == found.where(F.col("request_id") == previous).count() == MANY // 2


def most_common(clicks, item, asked):
    """By brute force: the query with most clicks before a moment, then the one clicked last, then the greater."""
    counts = {}
    for _, clicked, when, query in clicks:
        if clicked == item and when < asked:
            n, last = counts.get(query, (0, 0))
            counts[query] = n + 1, max(last, when)
    return max(((n, last, query) for query, (n, last) in counts.items()), default=(0, 0, None))[2]


def test_the_most_common_query_is_carried_over_spans_as_by_brute_force(spark):
    """Clicks of nine hours with gaps and ties; hour edges included."""
    rng = random.Random(0)
    moments = [
        at(rng.choice([0, 1, 59, 60, 61, 130, 200, 239, 240, 500])) + rng.choice([0, 0, -1, 1]) for _ in range(300)
    ]
    clicks = [(rng.choice("uv"), rng.choice("ab"), moment, rng.choice(["x", "y", "z"])) for moment in moments]
    asked = [
        ("w", rng.choice("abc"), moment + shift) for moment in sorted(set(moments)) for shift in (0, 1, 20 * MINUTE)
    ]
    pseudo = spark.createDataFrame(
        [(str(n), *row) for n, row in enumerate(asked)], "request_id string, user_id string, item_id string, asked long"
    )
    table = spark.createDataFrame(clicks, "user_id string, item_id string, at long, query string")
    rows = queries.past_queries(pseudo, table).collect()
    assert len(rows) == len(asked)
    found = {row["request_id"]: row["common"] for row in rows}
    assert found == {str(n): most_common(clicks, item, moment) for n, (_, item, moment) in enumerate(asked)}
    assert set(found.values()) == {"x", "y", "z", None} and all(row["own"] is None for row in rows)
