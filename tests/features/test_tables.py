"""Feature tables know the past and only the past: the law of leakage, and hand counts on random logs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features import tables
from features.behaviours import sequences
from features.catalogue import RATE_EXPOSURES, RATE_PRIOR
from features.sql import connect
from tests.features.log_folder import DESCRIPTION, FIRST_DAY, random_logs
from uniscale.logs import TIMESTAMP

DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def build(config, logs, folder: Path) -> dict[str, pa.Table]:
    """Every feature table of some logs, by name."""
    logs.write(folder / "logs")
    connection = connect(folder / "spill", "1GB")
    tables.open_logs(connection, folder / "logs")
    last = tables.last_day(connection)
    names = tables.write_tables(connection, config.features, DESCRIPTION, last + 1, folder / "tables")
    connection.close()
    return {name: pq.read_table(folder / "tables" / f"{name}.parquet") for name in names}


def until(rows: pa.Table, t: datetime) -> pa.Table:
    key = rows.column_names[0]
    return rows.filter(pc.field("ts") <= pa.scalar(t, TIMESTAMP)).sort_by([(key, "ascending"), ("ts", "ascending")])


def logs_with_events_at(t: datetime):
    """Random logs with a click at the instant `t` itself."""
    logs = random_logs(seed=5)
    logs.events.append({**logs.events[0], "event_id": "at t", "ts": t, "request_id": None})
    return logs


MOMENTS = {
    "a midnight": FIRST_DAY + 6 * DAY,
    "the last microsecond of a day": FIRST_DAY + 6 * DAY - timedelta(microseconds=1),
    "noon": FIRST_DAY + 9.5 * DAY,
}


@pytest.mark.parametrize("t", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("what", ["deleted", "shuffled"])
def test_nothing_up_to_t_depends_on_what_happens_from_t_on(config, tmp_path, t, what):
    whole, changed = logs_with_events_at(t), logs_with_events_at(t)
    rng = np.random.default_rng(1)
    for name in ("events", "exposures", "requests"):
        rows = getattr(changed, name)
        past, future = [row for row in rows if row["ts"] < t], [row for row in rows if row["ts"] >= t]
        if what == "deleted":
            future = []
        else:
            for column in ("item_id", "user_id", "query", "type"):
                values = [row.get(column) for row in future]
                for row, pick in zip(future, rng.permutation(len(future)), strict=True):
                    if column in row:
                        row[column] = values[pick]
        setattr(changed, name, past + future)
    changed.items = [row for row in changed.items if row["valid_from"] <= t]
    changed.candidates = []
    before, after = build(config, whole, tmp_path / "whole"), build(config, changed, tmp_path / "changed")
    for name, rows in before.items():
        assert until(rows, t).equals(until(after[name], t)), name
        assert (len(until(rows, t)) > 0 and len(until(rows, t)) < len(rows)) or name == "user_profile"


def test_statistics_are_the_counts_of_the_days_before(config, tmp_path):
    logs = random_logs(seed=2)
    found = build(config, logs, tmp_path)
    query_of = {row["request_id"]: row["query"] for row in logs.requests}

    def count(rows, day, window, **where):
        first, last = EPOCH + (day - window) * DAY, EPOCH + day * DAY
        return sum(first <= row["ts"] < last and all(row.get(k) == v for k, v in where.items()) for row in rows)

    for row in found["user_statistics"].to_pylist():
        day = (row["ts"] - EPOCH) // DAY
        for window in (1, 7, 30):
            for name, kind in (("clicks", "click"), ("orders", "purchase")):
                expected = count(logs.events, day, window, user_id=row["user_id"], type=kind)
                assert row[f"user_{name}_{window}d"] == expected
    for row in found["item_statistics"].to_pylist():
        day = (row["ts"] - EPOCH) // DAY
        shown = count(logs.exposures, day, 30, item_id=row["item_id"])
        clicks = count(logs.events, day, 30, item_id=row["item_id"], type="click")
        assert (row["item_exposures_30d"], row["item_clicks_30d"]) == (shown, clicks)
        rate = (clicks + RATE_PRIOR * RATE_EXPOSURES) / (shown + RATE_EXPOSURES)
        assert row["item_ctr_30d"] == pytest.approx(rate, rel=1e-6)
    clicked = [{**row, "query": query_of[row["request_id"]]} for row in logs.events if row["type"] == "click"]
    for row in found["query_statistics"].to_pylist():
        day = (row["ts"] - EPOCH) // DAY
        assert row["query_searches_7d"] == count(logs.requests, day, 7, query=row["query"])
        assert row["query_clicks_7d"] == count(clicked, day, 7, query=row["query"])


def test_statistics_are_stamped_every_day_until_the_first_that_is_all_zero(config, tmp_path):
    logs = random_logs(seed=3, requests=40, days=5)
    last = max(logs.requests, key=lambda row: row["ts"])
    logs.requests.append({**last, "request_id": "far", "ts": FIRST_DAY + 60 * DAY})  # the logs go on, the users do not
    rows = build(config, logs, tmp_path)["user_statistics"].to_pylist()
    for user in {row["user_id"] for row in rows}:
        own = [row for row in rows if row["user_id"] == user]
        days = [(row["ts"] - EPOCH) // DAY for row in own]
        assert days == list(range(days[0], days[-1] + 1))
        zero = [row["user_clicks_30d"] == row["user_orders_30d"] == 0 for row in own]
        assert zero[-1] and not any(zero[1:-1])


def test_mean_price_is_that_at_the_time_of_the_events(config, tmp_path):
    logs = random_logs(seed=4, requests=30, days=5)
    prices = {}
    for row in sorted(logs.items, key=lambda row: row["valid_from"]):
        prices.setdefault(row["item_id"], []).append((row["valid_from"], row["price"]))
    for row in build(config, logs, tmp_path)["user_statistics"].to_pylist():
        paid = [
            [price for since, price in prices[event["item_id"]] if since <= event["ts"]][-1]
            for event in logs.events
            if event["user_id"] == row["user_id"] and event["ts"] < row["ts"]
        ]
        assert row["user_mean_price_30d"] == pytest.approx(np.mean(paid) if paid else 0, rel=1e-5)


def test_first_version_of_an_item_counts_from_the_start_of_its_day(config, tmp_path):
    logs = random_logs(seed=1)
    new = {**logs.items[0], "item_id": "new", "price": 1.0}
    launch = FIRST_DAY + timedelta(days=3, hours=15)
    logs.items += [{**new, "valid_from": launch}, {**new, "valid_from": launch + timedelta(hours=1), "price": 2.0}]
    versions = build(config, logs, tmp_path)["item_versions"].filter(pc.field("item_id") == "new")
    assert versions["ts"].to_pylist() == [FIRST_DAY + 3 * DAY, launch + timedelta(hours=1)]
    assert versions["item_price"].to_pylist() == [1.0, 2.0]


def events_table(rows):
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.string()),
            "ts": pa.array([EPOCH + timedelta(microseconds=row[1]) for row in rows], TIMESTAMP),
            **{
                f"behaviour_{name}": pa.array([row[2] for row in rows], pa.string())
                for name in ("item_id", "category_1", "category_2", "category_3", "brand", "type")
            },
            "behaviour_ts": pa.array([row[1] // 10**6 for row in rows], pa.int64()),
        }
    )


def test_sequences_by_hand():
    day = 86_400_000_000
    rows = [("a", 5, "x"), ("a", 5, "y"), ("a", day - 1, "z"), ("b", 3 * day, "w")]
    found = sequences(events_table(rows), longest=2, end_day=3)
    micros = pc.cast(found["ts"], pa.int64()).to_pylist()
    assert list(zip(found["user_id"].to_pylist(), micros, found["behaviour_item_id"].to_pylist(), strict=True)) == [
        ("a", 6, ["x", "y"]),  # two events at one instant are one row
        ("a", day, ["y", "z"]),  # the event of the day's last microsecond and the midnight coincide
        ("a", 2 * day, ["y", "z"]),
        ("a", 3 * day, ["y", "z"]),
        ("b", 3 * day + 1, ["w"]),
    ]


def test_no_events_give_no_sequences():
    assert len(sequences(events_table([]), longest=2, end_day=3)) == 0


def test_parts_do_not_change_the_sequences(config, tmp_path, monkeypatch):
    key = [("user_id", "ascending"), ("ts", "ascending")]
    whole = build(config, random_logs(), tmp_path / "whole")["user_behaviours"]
    monkeypatch.setattr("features.behaviours.ROWS_A_PART", 200)
    parts = build(config, random_logs(), tmp_path / "parts")["user_behaviours"]
    assert parts.sort_by(key).equals(whole.sort_by(key)) and not parts.equals(whole)
