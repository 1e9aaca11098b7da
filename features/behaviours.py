"""Behaviour sequences: at every stamp, a user's newest behaviours, oldest first, as one feature row.

A stamp is one microsecond after an event, so that a request at the very instant of the event does not see it, or the
start of a day after the user's first event, so that a retrieval never needs to look back further than a day.
"""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue import CATEGORY_LEVELS
from uniscale.logs import TIMESTAMP
from uniscale.sections import FeatureConfig

ATTRIBUTES = (*(f"category_{level}" for level in range(1, CATEGORY_LEVELS + 1)), "brand")
ROWS_A_PART = 500_000  # users are worked off in parts of about this many rows, so that memory stays bounded
DAY_US = 86_400_000_000


def write_behaviours(connection: duckdb.DuckDBPyConnection, config: FeatureConfig, end_day: int, path: Path) -> int:
    """Write the table of behaviour sequences: user_id, ts, and lists of equal length.

    The lists are behaviour_item_id, behaviour_category_1 … 3, behaviour_brand and behaviour_type (strings, the item as
    it was at the event) and behaviour_ts (int64, unix seconds). Needs `events` and `item_versions`.

    Returns:
        Number of rows.
    """
    size = "count(*) + count(DISTINCT user_id) * (max(epoch_us(ts)) - min(epoch_us(ts))) // 86400000000"
    parts = 1 + (connection.execute(f"SELECT {size} FROM events").fetchall()[0][0] or 0) // ROWS_A_PART
    rows = 0
    with pq.ParquetWriter(path, _schema(), compression="zstd", store_schema=False) as writer:
        for part in range(parts):
            table = sequences(_events(connection, part, parts), config.max_behaviours, end_day)
            writer.write_table(table)
            rows += len(table)
    return rows


def sequences(events: pa.Table, longest: int, end_day: int) -> pa.Table:
    """Rows of behaviour sequences from events ordered by (user_id, ts, event_id).

    Args:
        events: user_id, ts, and one `behaviour_*` column for each list, length n.
        longest: behaviours kept, the newest.
        end_day: last day whose start is stamped, in days since 1970.
    """
    user = events["user_id"].combine_chunks().dictionary_encode()
    code = user.indices.to_numpy().astype(np.int64)  # (n,)
    seen_from = events["ts"].cast(pa.int64()).to_numpy() + 1  # (n,) the instant from which an event is history
    first = np.searchsorted(code, np.arange(len(user.dictionary)))  # (users,) a user's first event
    days = np.maximum(end_day - seen_from[first] // DAY_US, 0) if len(code) else np.zeros(0, np.int64)
    midnights = (end_day - _countdown(days)) * DAY_US  # (m,) every day's start after the first event
    owner = np.concatenate([code, np.repeat(np.arange(len(days)), days)])
    stamp = np.concatenate([seen_from, midnights])
    order = np.lexsort((stamp, owner))
    owner, stamp = owner[order], stamp[order]
    end = np.cumsum(order < len(code))  # events up to and with this stamp: the history is [start, end)
    newest = np.append((owner[1:] != owner[:-1]) | (stamp[1:] != stamp[:-1]), True)[: len(owner)]
    owner, stamp, end = owner[newest], stamp[newest], end[newest]
    start = np.maximum(end - longest, first[owner])
    offsets = np.concatenate([[0], np.cumsum(end - start)])
    picked = pa.array(np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], end - start))
    lists = {
        name: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), events[name].combine_chunks().take(picked))
        for name in events.column_names
        if name.startswith("behaviour_")
    }
    columns = {"user_id": user.dictionary.take(pa.array(owner)), "ts": pa.array(stamp).cast(TIMESTAMP), **lists}
    return pa.table(columns).cast(_schema())


def _countdown(counts: np.ndarray) -> np.ndarray:
    """For each count c the numbers c-1 … 0, concatenated."""
    ends = np.cumsum(counts)
    return np.repeat(ends, counts) - 1 - np.arange(ends[-1] if len(ends) else 0)


def _events(connection: duckdb.DuckDBPyConnection, part: int, parts: int) -> pa.Table:
    attributes = ", ".join(f"v.item_{name} AS behaviour_{name}" for name in ATTRIBUTES)
    return connection.sql(f"""
        SELECT e.user_id, e.ts, e.item_id AS behaviour_item_id, {attributes}, e.type AS behaviour_type,
            CAST(epoch_us(e.ts) // 1000000 AS BIGINT) AS behaviour_ts
        FROM events e ASOF LEFT JOIN item_versions v ON e.item_id = v.item_id AND e.ts >= v.ts
        WHERE hash(e.user_id) % {parts} = {part} ORDER BY e.user_id, e.ts, e.event_id""").to_arrow_table()


def _schema() -> pa.Schema:
    names = ("item_id", *ATTRIBUTES, "type")
    strings = [(f"behaviour_{name}", pa.list_(pa.string())) for name in names]
    return pa.schema([("user_id", pa.string()), ("ts", TIMESTAMP), *strings, ("behaviour_ts", pa.list_(pa.int64()))])
