"""The rim between Spark and the feature store: distinct keys out as Parquet, their features back as Parquet.

Retrieval is done once a request, once an (item, day) and once a (query, day), not once a sample. These keyed tables
pass through this process in batches of `BATCH_ROWS`, whatever their length; nothing else of the job does.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.es3.queries import build_index
from features.text import TextEncoder

BATCH_ROWS = 500_000
Retrieval = Callable[[Path, pa.Table], pa.Table]


def write_keys(keys: DataFrame, folder: Path) -> DataFrame:
    """Write a table of distinct keys with a `row_id` and return it as read back, so that the ids hold."""
    keys.withColumn("row_id", F.monotonically_increasing_id()).write.parquet(str(folder))
    return keys.sparkSession.read.parquet(str(folder))


def retrieve(spark: SparkSession, keys: Path, features: Path, retrieval: Retrieval, out: Path) -> DataFrame:
    """Features of written keys: row_id and the raw columns that `retrieval` returns."""
    catalogue = _catalogue(features)
    for number, rows in enumerate(_batches(keys)):
        found = retrieval(features, rows)
        if "behaviour_item_id" in found.column_names:
            found = found.append_column("behaviour_index", _indices(found["behaviour_item_id"], catalogue))
        _write(found, out / f"{number:05d}.parquet")
    return spark.read.parquet(str(out))


def encode_queries(spark: SparkSession, keys: Path, features: Path, out: Path, index: Path) -> DataFrame:
    """Vectors of distinct queries, and their ANN index.

    Args:
        spark: the session.
        keys: written by `write_keys`: row_id, query, first_asked.
        features: FEATURES folder with a text encoder.
        out: folder for the vectors.
        index: file of the faiss index, whose row i is `query_row` i.

    Returns:
        query_row, query, first_asked, query_text (array<float>).
    """
    rows = pa.concat_tables(_batches(keys)).sort_by("query")
    vectors = TextEncoder.load(features / "text_encoder").encode(rows["query"].to_pylist())  # (n, d)
    build_index(vectors, index)
    offsets = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1])
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1), pa.float32()))
    table = rows.select(["query", "first_asked"]).append_column("query_row", pa.array(np.arange(len(rows))))
    _write(table.append_column("query_text", lists), out / "00000.parquet")
    return spark.read.parquet(str(out))


def _batches(keys: Path) -> Iterator[pa.Table]:
    dataset = ds.dataset(keys, format="parquet")
    waiting: list[pa.RecordBatch] = []
    for batch in dataset.to_batches(batch_size=BATCH_ROWS):
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= BATCH_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting = []
    yield pa.Table.from_batches(waiting, dataset.schema)


def _catalogue(features: Path) -> pa.Table:
    return pq.read_table(features / "items.parquet", columns=["item_id", "index"])


def _indices(items: pa.ChunkedArray, catalogue: pa.Table) -> pa.Array:
    """Item ids (lists) as lists of their index in items.parquet, 0 where it is not there."""
    lists = items.combine_chunks()
    found = pc.index_in(lists.flatten(), value_set=catalogue["item_id"].combine_chunks())
    index = pc.fill_null(pc.take(catalogue["index"].combine_chunks(), found), 0)
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), index)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # What Spark noted about the keys' columns would override the schema of the table made of them.
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")
