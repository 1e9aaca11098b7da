"""The online side of the store: fresh behaviours pushed in."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore
from feast.data_source import PushMode

from features.behaviours import ATTRIBUTES
from features.sql import text
from features.store.repository import open_online
from uniscale.errors import DataError
from uniscale.samples import SampleSpec

STRINGS = ("item_id", *ATTRIBUTES, "type")


def push_behaviours(features: Path, events: pa.Table, store: FeatureStore | None = None) -> int:
    """Append fresh behaviours to their users' online sequences, the newest `max_behaviours` of which stay.

    Args:
        features: FEATURES folder.
        events: user_id string, item_id string, ts timestamp[us, UTC], type string; in any order.
        store: an open store of this folder, which saves opening it.

    Returns:
        Number of users whose sequence changed.

    Raises:
        DataError: a column is missing, or an item is unknown.
    """
    missing = {"user_id", "item_id", "ts", "type"} - set(events.column_names)
    if missing:
        raise DataError(f"behaviours need user_id, item_id, ts and type; {sorted(missing)} missing")
    if not len(events):
        return 0
    store = store or open_online(features)
    fresh = _with_attributes(features, events)
    old = _online_sequences(store, sorted(set(fresh["user_id"].to_pylist())))
    merged = _merged(old, fresh, SampleSpec.load(features).max_behaviours)
    store.push("behaviours", merged.to_pandas(), to=PushMode.ONLINE)
    return len(merged)


def _with_attributes(features: Path, events: pa.Table) -> pa.Table:
    """The events' behaviour columns, with the items' newest attributes; "" where unknown, as Feast keeps lists."""
    versions = Path(features) / "tables" / "item_versions.parquet"
    attributes = ", ".join(f"coalesce(item_{name}, '') AS behaviour_{name}" for name in ATTRIBUTES)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("events", events)
    rows = connection.sql(f"""
        SELECT e.user_id, e.ts, e.item_id AS behaviour_item_id, i.* EXCLUDE (item_id), e.type AS behaviour_type,
            CAST(epoch_us(e.ts) // 1000000 AS BIGINT) AS behaviour_ts, i.item_id IS NOT NULL AS known
        FROM events e LEFT JOIN (
            SELECT item_id, {attributes} FROM {text(versions)}
            QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY ts DESC) = 1
        ) i ON e.item_id = i.item_id ORDER BY e.user_id, e.ts, e.item_id, e.type""").to_arrow_table()
    connection.close()
    unknown = rows.filter(pc.invert(rows["known"]))["behaviour_item_id"].unique().to_pylist()
    if unknown:
        raise DataError(
            f"behaviours name {len(unknown)} unknown items, such as {unknown[0]!r}: build the features anew"
        )
    return rows.drop_columns(["known"])


def _online_sequences(store: FeatureStore, users: list[str]) -> pa.Table:
    names = [*(f"behaviour_{name}" for name in STRINGS), "behaviour_ts"]
    answer = store.get_online_features(
        [f"user_behaviours:{name}" for name in names], [{"user_id": user} for user in users]
    )
    known, stamps = answer.to_dict(), answer.proto.results[-1].event_timestamps  # of behaviour_ts, 1970 for new users
    kinds = {name: pa.list_(pa.int64() if name == "behaviour_ts" else pa.string()) for name in names}
    columns = {name: pa.array(known[name], kinds[name]) for name in names}
    at = pa.array([stamp.ToMicroseconds() for stamp in stamps], pa.timestamp("us", "UTC"))
    return pa.table({"user_id": users, "ts": at, **columns})


def _merged(old: pa.Table, fresh: pa.Table, longest: int) -> pa.Table:
    """Sequences of old and fresh behaviours together, in order of time, cut to the newest.

    Fresh ones may be older than some that are there: a stream does not keep the order of what it brings. A sequence is
    stamped after its newest behaviour and after the sequence that it replaces, which Redis would keep otherwise.
    """
    names = [name for name in fresh.column_names if name.startswith("behaviour_")]
    apart = ", ".join(f"unnest({name}) AS {name}" for name in names)
    order = "behaviour_ts, place, ts, behaviour_item_id, behaviour_type"  # what was there keeps its order
    lists = ", ".join(f"list({name} ORDER BY {order})[-{longest}:] AS {name}" for name in names)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("old", old)
    connection.register("fresh", fresh.select(["user_id", "ts", *names]))
    merged = connection.sql(f"""
        WITH kept AS (SELECT user_id, ts, generate_subscripts(behaviour_ts, 1) AS place, {apart} FROM old)
        SELECT user_id, max(ts) + INTERVAL 1 MICROSECOND AS ts, {lists}
        FROM (
            FROM kept UNION ALL BY NAME SELECT *, 1000000 AS place FROM fresh
        ) GROUP BY user_id ORDER BY user_id""").to_arrow_table()
    connection.close()
    return merged
