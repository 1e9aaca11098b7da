"""The query of a pseudo-search request: the user's own, else the item's most common, else the nearest to its title.

UniScale 3.3.2, feature alignment. Every rule looks at the past of the pseudo-request only, the third included: a
query counts from the first time anyone typed it. The search of rule 3 is `features.es3.corpus`.
"""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.es3.attribution import Rules
from uniscale.samples import QueryRule

SPAN = 3_600_000_000  # microseconds of an item's clicks that are sorted together


def search_clicks(events: DataFrame, requests: DataFrame, rules: Rules) -> DataFrame:
    """Every primary event of the target domain with the query it followed: user_id, item_id, at, query."""
    asked = requests.where("query is not null").select(F.col("request_id").alias("event_request"), F.col("query"))
    clicks = events.where(F.col("own") & (F.col("task") == rules.primary))
    return clicks.join(asked, "event_request").select("user_id", "item_id", "at", "query")


def past_queries(pseudo: DataFrame, clicks: DataFrame) -> DataFrame:
    """Rules 1 and 2: the last query that led this user to the item, and the query that led most users to it.

    Args:
        pseudo: request_id, user_id, item_id, asked (microseconds).
        clicks: result of `search_clicks`.

    Returns:
        request_id, own, common: strings, null where the rule has nothing. Among equally common queries the one
        clicked last wins, then the greater string.
    """
    rows = pseudo.select("request_id", "user_id", "item_id", F.col("asked").alias("at"), _span(F.col("asked")))
    clicks = clicks.select("*", _span(F.col("at")))
    past = Window.orderBy("at").rangeBetween(Window.unboundedPreceding, -1)
    walk = clicks.select("user_id", "item_id", "at", F.struct("at", "query").alias("last"))
    own = (
        walk.unionByName(rows, allowMissingColumns=True)
        .withColumn("last", F.max("last").over(past.partitionBy("user_id", "item_id")))
        .where(F.col("request_id").isNotNull())
        .select("request_id", "item_id", "at", "span", F.col("last.query").alias("own"))
    )

    # A query's count only grows, so the running maximum over (count, time, query) is the most common one so far. It
    # is carried from span to span and completed within one: no sort holds more of an item than one span of it.
    sums = clicks.groupBy("item_id", "query", "span").agg(F.count("*").alias("n"), F.max("at").alias("at"))
    through = Window.partitionBy("item_id", "query").orderBy("span").rowsBetween(Window.unboundedPreceding, 0)
    sums = sums.withColumn("total", F.sum("n").over(through))
    ends = sums.select("item_id", "span", F.struct(F.col("total").alias("n"), "at", "query").alias("most"))
    before = Window.partitionBy("item_id").orderBy("span").rowsBetween(Window.unboundedPreceding, -1)
    carried = (
        ends.unionByName(rows.select("item_id", "span"), allowMissingColumns=True)
        .groupBy("item_id", "span")
        .agg(F.max("most").alias("most"))
        .select("item_id", "span", F.max("most").over(before).alias("carried"))
    )
    so_far = Window.partitionBy("item_id", "query", "span").orderBy("at").rangeBetween(Window.unboundedPreceding, 0)
    seen = clicks.join(
        sums.select("item_id", "query", "span", (F.col("total") - F.col("n")).alias("base")),
        ["item_id", "query", "span"],
    ).select(
        "item_id",
        "span",
        "at",
        F.struct((F.col("base") + F.count("*").over(so_far)).alias("n"), "at", "query").alias("most"),
    )
    return (
        seen.unionByName(own, allowMissingColumns=True)
        .withColumn("most", F.max("most").over(past.partitionBy("item_id", "span")))
        .where(F.col("request_id").isNotNull())
        .join(carried, ["item_id", "span"])
        .select("request_id", "own", F.greatest("most", "carried")["query"].alias("common"))
    )


def _span(at: Column) -> Column:
    return (at - F.pmod(at, F.lit(SPAN))).alias("span")


def choose(pseudo: DataFrame, past: DataFrame, nearest: DataFrame, corpus: DataFrame) -> DataFrame:
    """Give each pseudo-request its `query` and `query_rule`; both are null where no rule applies.

    Args:
        pseudo: request_id and whatever else.
        past: result of `past_queries`.
        nearest: result of `corpus.nearest_queries` for requests that the first two rules leave without a query.
        corpus: query_row, query.
    """
    similar = nearest.join(corpus, "query_row").select("request_id", F.col("query").alias("similar"))
    rule = (
        F.when(F.col("own").isNotNull(), int(QueryRule.OWN_HISTORY))
        .when(F.col("common").isNotNull(), int(QueryRule.CO_OCCURRENCE))
        .when(F.col("similar").isNotNull(), int(QueryRule.NEAREST))
    )
    return (
        pseudo.join(past, "request_id", "left")
        .join(similar, "request_id", "left")
        .withColumns({"query": F.coalesce("own", "common", "similar"), "query_rule": rule.cast("tinyint")})
        .drop("own", "common", "similar")
    )
