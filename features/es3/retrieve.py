"""The rim between Spark and the feature store: keyed tables out as Parquet, their model inputs back beside the keys.

Retrieval is done once a request, once an (item, day) and once a (query, day), not once a sample. These tables pass
through this process in batches of `BATCH_ROWS`, whatever their length; nothing else of the job does.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from features.es3 import corpus
from features.es3.days import write_days
from features.es3.inputs import like_lists, model_inputs
from features.store.retrieval import item_day_features, query_day_features, request_features
from features.text import TextEncoder
from uniscale.logs import TIMESTAMP
from uniscale.samples import Feature, SampleSpec

BATCH_ROWS = 100_000
KEYS = pa.schema([("key", pa.string()), ("day", pa.date32())])
GROUP_ROWS = 4_096  # rows of a Parquet row group, the unit that Spark hands to its cores


def write_request_inputs(keys: Path, features: Path, spec: SampleSpec, out: Path) -> None:
    """Write `request_inputs` of the requests in a Parquet folder (user_id, ts and more), in their order."""
    catalogue = _catalogue(features)
    for number, rows in enumerate(_batches(keys)):
        found = request_features(features, _asked(rows, "user_id"))
        _write(request_inputs(rows, found, catalogue, spec), out / f"{number:05d}.parquet")


def write_item_days(keys: Path, features: Path, spec: SampleSpec, out: Path) -> None:
    """Write `item_inputs` of the (item, day) keys in a Parquet folder (key, day) by day."""
    catalogue = _catalogue(features)
    for number, rows in enumerate(_batches(keys)):
        keyed = _at_midnight(rows, "item_id")
        found = _beside(keyed, item_day_features(features, _asked(keyed, "item_id")))
        write_days(keyed["day"], item_inputs(found, catalogue, spec), out, number)


def write_query_days(keys: Path, features: Path, spec: SampleSpec, out: Path) -> None:
    """Write `query_inputs` of the (query, day) keys in a Parquet folder (key, day) by day."""
    encoder = TextEncoder.load(features / "text_encoder") if spec.text_dim else None
    for number, rows in enumerate(_batches(keys)):
        keyed = _at_midnight(rows, "query")
        found = _beside(keyed, query_day_features(features, _asked(keyed, "query")))
        write_days(keyed["day"], query_inputs(found, encoder, spec), out, number)


def request_inputs(rows: pa.Table, found: pa.Table, catalogue: pa.Table, spec: SampleSpec) -> pa.Table:
    """Requests with the inputs that hold for a request as of its time.

    Args:
        rows: user_id, query, context columns, and whatever else: n rows.
        found: their raw user and behaviour columns, n rows in the same order.
        catalogue: item_id, index.
        spec: the features wanted.

    Returns:
        `rows` with every user, context and behaviour feature, `query_hash`, behaviour_index and behaviour_ts (empty
        lists where users do not return).
    """
    wanted = [*spec.select("behaviour"), *(f for f in spec.select("request") if not _daily(f))]
    inputs = model_inputs(_beside(rows, found), wanted)
    empty = pa.ListArray.from_arrays(pa.array(np.zeros(len(rows) + 1, np.int32)), pa.array([], pa.int64()))
    inputs |= {"behaviour_ts": empty, "behaviour_index": empty.cast(pa.list_(pa.int32()))}
    if "behaviour_ts" in found.column_names:
        items, instants = (found[name].combine_chunks() for name in ("behaviour_item_id", "behaviour_ts"))
        inputs["behaviour_ts"] = like_lists(instants, instants.flatten())
        inputs["behaviour_index"] = like_lists(items, _index(items.flatten(), catalogue))
    kept = rows.drop_columns([name for name in inputs if name in rows.column_names])
    return _beside(kept, pa.table(inputs))


def item_inputs(found: pa.Table, catalogue: pa.Table, spec: SampleSpec) -> pa.Table:
    """item_id, item (index, 0 unknown) and the candidate-level inputs, from item_id and the raw item columns."""
    keys = {"item_id": found["item_id"], "item": _index(found["item_id"], catalogue)}
    return pa.table(keys | model_inputs(found, spec.select("candidate")))


def query_inputs(found: pa.Table, encoder: TextEncoder | None, spec: SampleSpec) -> pa.Table:
    """query, its daily inputs and query_text (null without an encoder), from query and the raw query columns."""
    inputs = {"query": found["query"], **model_inputs(found, filter(_daily, spec.select("request")))}
    inputs["query_text"] = pa.nulls(len(found), pa.list_(pa.float32()))
    if encoder is not None:
        coded = found["query"].combine_chunks().dictionary_encode()  # a query comes once a day
        vectors = encoder.encode(coded.dictionary.to_pylist())  # (n, d)
        offsets = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1])
        lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1), pa.float32()))
        inputs["query_text"] = lists.take(coded.indices)
    return pa.table(inputs)


def write_corpus(keys: Path, features: Path, out: Path) -> None:
    """Encode queries block by block, for `corpus.nearest` in `out/ann` and as `out/rows/*.parquet` (query_row, query).

    Args:
        keys: Parquet of distinct queries: query, first_asked, in the order of first_asked, then of the query.
        features: FEATURES folder with a text encoder.
        out: folder to write.
    """
    encoder = TextEncoder.load(features / "text_encoder")
    for number, rows in enumerate(_batches(keys, corpus.BLOCK)):
        vectors = encoder.encode(rows["query"].to_pylist())  # (n, d)
        corpus.write_block(out / "ann", number, vectors, rows["first_asked"].to_numpy())
        place = pa.array(np.arange(len(rows)) + number * corpus.BLOCK)
        _write(pa.table({"query_row": place, "query": rows["query"]}), out / "rows" / f"{number:05d}.parquet")


def _daily(feature: Feature) -> bool:
    """Whether a request-level feature is a statistic of its query, which changes once a day."""
    return feature.block == "query" and feature.kind != "id"


def _asked(rows: pa.Table, key: str) -> pa.Table:
    return pa.table({"row_id": np.arange(len(rows)), key: rows[key], "ts": rows["ts"]})


def _beside(rows: pa.Table, found: pa.Table) -> pa.Table:
    """Retrieved columns beside the rows they were asked for, which come back in order."""
    for name in found.column_names:
        if name != "row_id":
            rows = rows.append_column(name, found[name])
    return rows


def _at_midnight(rows: pa.Table, key: str) -> pa.Table:
    return pa.table({key: rows["key"], "day": rows["day"], "ts": rows["day"].cast(pa.timestamp("us")).cast(TIMESTAMP)})


def _batches(folder: Path, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """The rows of a Parquet folder in the order of its files, `rows` at a time, and then the rest or none."""
    files = [str(file) for file in sorted(folder.rglob("*.parquet"))]
    # Spark writes no folder for a kind of key that nobody asks for.
    dataset = ds.dataset(files, format="parquet") if files else ds.dataset(KEYS.empty_table())
    waiting = dataset.schema.empty_table()
    for batch in dataset.to_batches(batch_size=rows):
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while len(waiting) >= rows:
            yield waiting.slice(0, rows)
            waiting = waiting.slice(rows)
    yield waiting


def _catalogue(features: Path) -> pa.Table:
    return pq.read_table(features / "items.parquet", columns=["item_id", "index"])


def _position(keys: pa.ChunkedArray | pa.Array, known: pa.ChunkedArray) -> pa.Array:
    return pc.index_in(keys, value_set=known.combine_chunks())


def _index(items: pa.ChunkedArray | pa.Array, catalogue: pa.Table) -> pa.Array:
    """Index in items.parquet, 0 where it is not there."""
    return catalogue["index"].take(_position(items, catalogue["item_id"])).fill_null(0).combine_chunks()


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # What Spark noted about the keys' columns would override the schema of the table made of them.
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd", row_group_size=GROUP_ROWS)
