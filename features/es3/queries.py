"""The query of a pseudo-search request: the user's own, else the item's most common, else the nearest to its title.

UniScale 3.3.2, feature alignment. Every rule looks at the past of the pseudo-request only, the third included: a
query counts from the first time anyone typed it.
"""

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from features.es3.attribution import Rules
from uniscale.samples import QueryRule

NEIGHBOURS = 32  # queries looked up an item; the nearest that is old enough is taken
PROBES = 16  # lists of the inverted file searched an item
EXACT_BELOW = 50_000  # queries; larger corpora get an inverted file (see `build_index`)


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
    rows = pseudo.select("request_id", "user_id", "item_id", F.col("asked").alias("at"))
    past = Window.orderBy("at").rangeBetween(Window.unboundedPreceding, -1)
    so_far = Window.partitionBy("item_id", "query").orderBy("at").rangeBetween(Window.unboundedPreceding, 0)
    # A query's count only grows, so the running maximum over (count, time, query) is the most common one so far.
    seen = clicks.withColumns(
        {"last": F.struct("at", "query"), "most": F.struct(F.count("*").over(so_far).alias("n"), "at", "query")}
    ).drop("query")
    walk = seen.unionByName(rows, allowMissingColumns=True)
    return (
        walk.withColumn("most", F.max("most").over(past.partitionBy("item_id")))
        .withColumn("last", F.max("last").over(past.partitionBy("user_id", "item_id")))
        .where(F.col("request_id").isNotNull())
        .select("request_id", F.col("last.query").alias("own"), F.col("most.query").alias("common"))
    )


def build_index(vectors: np.ndarray, path: Path) -> None:
    """Write a faiss index of unit vectors (n, d): exact while small, else an inverted file of about √n lists."""
    count, width = vectors.shape
    exact = faiss.IndexFlatIP(width)
    index: faiss.Index = exact
    if count >= EXACT_BELOW:
        index = faiss.IndexIVFFlat(exact, width, int(np.sqrt(count)), faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:: max(1, count // 100_000)])
        index.nprobe = PROBES
    index.add(vectors)
    faiss.write_index(index, str(path))


def nearest_queries(items: DataFrame, index: Path) -> DataFrame:
    """Rule 3, by ANN: the queries nearest to each item's title.

    Args:
        items: item_id, text (array<float>, unit length).
        index: file written by `build_index`; every worker opens it once.

    Returns:
        item_id, query_row (row in the index), distance (minus the cosine; below 0, unlike texts are no neighbours).
    """
    path = str(index)

    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(1)
        opened = faiss.read_index(path, faiss.IO_FLAG_MMAP)
        for batch in batches if opened.ntotal else ():
            texts = batch.column("text").flatten().to_numpy().reshape(batch.num_rows, -1)
            cosine, rows = opened.search(np.ascontiguousarray(texts, np.float32), min(NEIGHBOURS, opened.ntotal))
            kept = (rows >= 0) & (cosine > 0)
            item = np.nonzero(kept)[0]
            yield pa.record_batch(
                {
                    "item_id": batch.column("item_id").take(pa.array(item)),
                    "query_row": pa.array(rows[kept], pa.int64()),
                    "distance": pa.array(-cosine[kept], pa.float32()),
                }
            )

    return items.mapInArrow(search, "item_id string, query_row long, distance float")


def choose(pseudo: DataFrame, past: DataFrame, nearest: DataFrame, corpus: DataFrame) -> DataFrame:
    """Give each pseudo-request its `query` and `query_rule`; both are null where no rule applies.

    Args:
        pseudo: request_id, item_id, asked and whatever else.
        past: result of `past_queries`.
        nearest: result of `nearest_queries`.
        corpus: query_row, query, first_asked (microseconds).
    """
    found = pseudo.join(past, "request_id", "left")
    similar = (
        found.where("own is null and common is null")
        .select("request_id", "item_id", "asked")
        .join(nearest, "item_id")
        .join(corpus, "query_row")
        .where(F.col("first_asked") < F.col("asked"))
        .groupBy("request_id")
        .agg(F.min(F.struct("distance", "query")).alias("best"))
        .select("request_id", F.col("best.query").alias("similar"))
    )
    rule = (
        F.when(F.col("own").isNotNull(), int(QueryRule.OWN_HISTORY))
        .when(F.col("common").isNotNull(), int(QueryRule.CO_OCCURRENCE))
        .when(F.col("similar").isNotNull(), int(QueryRule.NEAREST))
    )
    return (
        found.join(similar, "request_id", "left")
        .withColumns({"query": F.coalesce("own", "common", "similar"), "query_rule": rule.cast("tinyint")})
        .drop("own", "common", "similar")
    )
