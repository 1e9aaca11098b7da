"""Clean logs in, FEATURES folder out: feature tables, item vectors, the text encoder, the Feast store."""

import tempfile
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import tables
from features.catalogue import sample_spec
from features.splits import split_by_time
from features.sql import connect, text
from features.store.repository import apply, materialise
from features.text import TextEncoder
from uniscale.artifacts import atomic_folder, write_json
from uniscale.config import Config
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.progress import Progress

EPOCH = date(1970, 1, 1)
MEMORY_LIMIT = "2GB"


def build_features(config: Config, logs: Path, out: Path, previous: Path | None = None) -> dict[str, Any]:
    """Build every feature table of a clean log folder; register and materialise the Feast store.

    Writes `tables/*.parquet` (the Feast sources), `store/` (feature_store.yaml, registry, online store),
    `items.parquet` (index from 1, item_id, content, text), `text_encoder/` (when there is text; fitted on the days
    before the test split), `splits.json` (of the days that have requests: the one place where the split is decided),
    `spec.json`, `description.json` and `report.json`.

    The online store stands where the service's requests begin: after the logs in a simulation, whose users go on to
    answer the service; at the start of the test days otherwise, which are replayed and whose clicks must not be known.

    Args:
        config: sections `features` and `samples`, and `seed`.
        logs: clean LOGS folder.
        out: FEATURES folder, written whole or not at all.
        previous: FEATURES folder of an earlier build: its text encoder is kept, and its items keep their numbers, new
            ones following them. Samples that take days over from an earlier build need it.

    Returns:
        What `report.json` holds: rows of each table, items, texts fitted on, and the online store's instants: `as_of`
        for what users did, `attributes_as_of` for item attributes and profiles.

    Raises:
        DataError: no log folder, too few days to split, or no text where the description promises it.
    """
    logs, out = Path(logs), Path(out)
    description = LogDescription.load(logs)
    progress = Progress("features", 4, "stages")
    with atomic_folder(out) as folder, tempfile.TemporaryDirectory(prefix=".spill-", dir=out.parent) as spill:
        connection = connect(Path(spill), MEMORY_LIMIT)
        tables.open_logs(connection, logs)
        last = tables.last_day(connection)
        first_request, last_request = map(_date, tables.request_days(connection))
        splits = split_by_time(first_request, last_request, description.tasks.values(), config.samples)
        rows = tables.write_tables(connection, config.features, description, last + 1, folder / "tables")
        progress.advance(note="tables")
        splits.save(folder, config.samples)
        cutoff = splits.test[0]
        vectors = _write_items(connection, config, description, cutoff, folder, previous)
        connection.close()
        progress.advance(note="text and items")
        description.save(folder)
        sample_spec(config.features, description, vectors["content_dim"]).save(folder)
        progress.advance(note="catalogue")
        end = datetime.combine(_date(last + 1), time.min, UTC)
        as_of = end if description.has_truth else datetime.combine(cutoff, time.min, UTC)
        materialise(folder, config.features, as_of, end)
        final = out.resolve() / "tables"  # where the tables will be once the folder is in place
        apply(folder, final, config.features, as_of, end)
        report = {"rows": rows, **vectors, "as_of": as_of.isoformat(), "attributes_as_of": end.isoformat()}
        write_json(folder / "report.json", report)
        progress.advance(note="online store")
    progress.finish(f"({sum(rows.values()):,} rows in {len(rows)} tables)")
    return report


def _write_items(
    connection: duckdb.DuckDBPyConnection,
    config: Config,
    description: LogDescription,
    cutoff: date,
    folder: Path,
    previous: Path | None,
) -> dict[str, int]:
    """Write items.parquet and the text encoder; an item's title and embedding are those of its first version."""
    none = "SELECT '' AS item_id, 0 AS index"
    numbered = f"FROM read_parquet({text(previous / 'items.parquet')})" if previous else none
    items = connection.sql(f"""
        SELECT item_id, title, embedding FROM (
            SELECT item_id, arg_min(title, valid_from) AS title, arg_min(embedding, valid_from) AS embedding
            FROM items GROUP BY item_id
        ) LEFT JOIN ({numbered}) USING (item_id) ORDER BY index NULLS LAST, item_id""").to_arrow_table()
    texts = 0
    titles = np.zeros((len(items), 0), np.float32)
    if description.has_text:
        if previous:
            encoder = TextEncoder.load(previous / "text_encoder")
        else:
            fitted = connection.sql(f"""
                SELECT title FROM items WHERE title IS NOT NULL AND valid_from < DATE '{cutoff}'
                UNION SELECT query FROM requests WHERE query IS NOT NULL AND ts < DATE '{cutoff}'""").fetchall()
            encoder = TextEncoder.fit([row[0] for row in fitted], config.features.text_dim, config.seed)
            texts = len(fitted)
        encoder.save(folder / "text_encoder")
        titles = encoder.encode(items["title"].to_pylist())
    content = _matrix(items["embedding"]) if description.has_embeddings else np.zeros((len(items), 0), np.float32)
    pq.write_table(
        pa.table(
            {
                "index": pa.array(np.arange(1, len(items) + 1, dtype=np.int32)),
                "item_id": items["item_id"],
                "content": _lists(content),
                "text": _lists(titles),
            }
        ),
        folder / "items.parquet",
    )
    return {"items": len(items), "texts": texts, "content_dim": content.shape[1]}


def _matrix(vectors: pa.ChunkedArray) -> np.ndarray:
    """Rows of a list column as a matrix (n, d); a null list is a zero row."""
    column = vectors.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    width = int(lengths.max(initial=0))
    if not np.isin(lengths, (0, width)).all():
        raise DataError(f"item embeddings have widths {np.unique(lengths).tolist()}: give every item the same width")
    matrix = np.zeros((len(lengths), width), np.float32)
    matrix[lengths > 0] = column.flatten().to_numpy().reshape(-1, width) if width else 0.0
    return matrix


def _lists(matrix: np.ndarray) -> pa.Array:
    """A matrix (n, d) as a list<float32> column."""
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1), pa.float32()))


def _date(day_number: int) -> date:
    return EPOCH + timedelta(days=day_number)
