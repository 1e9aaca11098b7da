"""Ingest: every broken rule ends in quarantine with its reason, nothing is lost, and what cannot be mended says why."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.ingest import ingest
from tests.features.log_folder import DESCRIPTION, FIRST_DAY, random_logs, table
from uniscale.artifacts import content_hash, read_json
from uniscale.errors import DataError
from uniscale.logs import TABLES
from uniscale.sections import IngestConfig

LENIENT = IngestConfig(max_quarantine_share=1.0, max_query_length=256)


def small():
    return random_logs(requests=60, days=5)


def run(logs, tmp_path, config=LENIENT):
    return ingest(config, logs.write(tmp_path / "logs"), tmp_path / "clean")


def read(folder, name):
    return pq.read_table(folder / (name if TABLES[name].by_day else f"{name}.parquet"), partitioning=None)


def test_valid_logs_pass_unchanged(tmp_path):
    logs = small()
    report = run(logs, tmp_path)
    for name in TABLES:
        key = [(each, "ascending") for each in TABLES[name].key]
        assert read(tmp_path / "clean", name).sort_by(key).equals(table(name, getattr(logs, name)).sort_by(key))
        assert report["tables"][name]["quarantined"] == 0
    assert report["warnings"] == [] and sum(report["requests_by_day"].values()) == 60
    assert read_json(tmp_path / "clean" / "report.json") == report
    assert not (tmp_path / "clean" / "quarantine").exists()


def test_same_logs_give_the_same_bytes(tmp_path):
    logs = small().write(tmp_path / "logs")
    ingest(LENIENT, logs, tmp_path / "one")
    ingest(LENIENT, logs, tmp_path / "two")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")


BREAKS = {  # what is done to the logs -> table, reason
    "NaN price": ("items", "price is not finite"),
    "negative price": ("items", "price is below 0"),
    "embedding with a NaN": ("items", "embedding holds a missing or infinite number"),
    "short embedding": ("items", "embedding has an unusual width"),
    "10 kB query": ("requests", "query is longer than 256 characters"),
    "blank query": ("requests", "query is blank"),
    "unknown domain": ("requests", "domain is not in description.json"),
    "unknown scenario": ("requests", "scenario is not in description.json"),
    "time in 1970": ("requests", "ts is before 1990 or after 2100"),
    "no user": ("requests", "user_id is null"),
    "unknown user": ("requests", "refers to unknown users.user_id"),
    "unknown item": ("exposures", "refers to unknown items.item_id"),
    "position zero": ("exposures", "position is below 1"),
    "shown early": ("exposures", "shown before its request"),
    "shown twice": ("exposures", "duplicate of request_id, item_id"),
    "candidate twice": ("candidates", "item_ids repeats an item"),
    "score missing": ("candidates", "scores and item_ids differ in length"),
    "duplicate event": ("events", "duplicate of event_id"),
    "event before request": ("events", "happened before its request"),
    "event of another user": ("events", "user differs from its request's"),
    "event without request": ("events", "refers to unknown requests.request_id"),
    "infinite amount": ("events", "amount is not finite"),
}


def spoil(logs, what, number=0):
    """Break one row of the logs, or add a broken one, marked by `number`."""
    name, new = BREAKS[what][0], f"new{number}"
    if name == "candidates":
        row = logs.candidates[number]
        changes = {
            "candidate twice": {"item_ids": [*row["item_ids"][:-1], row["item_ids"][0]]},
            "score missing": {"scores": row["scores"][1:]},
        }
        row.update(changes[what])
        return logs
    item = {**logs.items[0], "item_id": new}
    request = {**logs.requests[0], "request_id": new, "query": "cup", "domain": "search", "scenario": ["keyword"]}
    shown = logs.exposures[5 * number]
    unseen = {row["item_id"] for row in logs.items} - {
        row["item_id"] for row in logs.exposures if row["request_id"] == shown["request_id"]
    }
    exposure = {**shown, "item_id": min(unseen)}
    event = {**logs.events[number], "event_id": new}
    bad = {
        "NaN price": {**item, "price": float("nan")},
        "negative price": {**item, "price": -1.0},
        "embedding with a NaN": {**item, "embedding": [1.0, float("nan"), 0.0, 0.0]},
        "short embedding": {**item, "embedding": [1.0]},
        "10 kB query": {**request, "query": "q" * 10_000},
        "blank query": {**request, "query": "  "},
        "unknown domain": {**request, "domain": "mars"},
        "unknown scenario": {**request, "scenario": ["keyword", "mars"]},
        "time in 1970": {**request, "ts": datetime(1970, 1, 1, tzinfo=UTC)},
        "no user": {**request, "user_id": None},
        "unknown user": {**request, "user_id": "nobody"},
        "unknown item": {**exposure, "item_id": "nothing"},
        "position zero": {**exposure, "position": 0},
        "shown early": {**exposure, "ts": shown["ts"] - timedelta(seconds=1)},
        "shown twice": {**shown, "position": 77},
        "duplicate event": {**logs.events[number], "ts": event["ts"] + timedelta(seconds=1)},
        "event before request": {**event, "ts": FIRST_DAY - timedelta(days=1)},
        "event of another user": {**event, "user_id": "u1" if event["user_id"] == "u0" else "u0"},
        "event without request": {**event, "request_id": "nothing"},
        "infinite amount": {**event, "amount": float("inf")},
    }
    getattr(logs, name).append(bad[what])
    return logs


def test_every_broken_row_is_quarantined_with_its_reason_and_the_totals_add_up(tmp_path):
    logs = small()
    for number, what in enumerate(BREAKS):
        spoil(logs, what, number)
    report = run(logs, tmp_path)
    for name in TABLES:
        counts, expected = report["tables"][name], {reason: 1 for broken, reason in BREAKS.values() if broken == name}
        assert counts["reasons"] == expected
        assert counts["rows_in"] == len(getattr(logs, name)) == counts["rows_out"] + counts["quarantined"]
        assert counts["quarantined"] == len(expected)
        assert counts["rows_out"] == len(read(tmp_path / "clean", name))
        if expected:
            quarantined = pq.read_table(tmp_path / "clean" / "quarantine" / f"{name}.parquet")
            assert sorted(quarantined["reason"].to_pylist()) == sorted(expected)


def test_of_duplicates_the_earliest_stays(tmp_path):
    logs = spoil(small(), "duplicate event")
    logs.events.reverse()
    run(logs, tmp_path)
    kept = read(tmp_path / "clean", "events").filter(pc.field("event_id") == logs.events[-1]["event_id"])
    assert kept["ts"].to_pylist() == [logs.events[-1]["ts"]]


def test_what_refers_to_a_quarantined_row_follows_it(tmp_path):
    logs = small()
    request = logs.requests[0]
    request["user_id"] = None
    report = run(logs, tmp_path)
    for name in ("exposures", "events", "candidates"):
        followers = sum(row["request_id"] == request["request_id"] for row in getattr(logs, name))
        reasons = {"refers to a quarantined row of requests": followers} if followers else {}
        assert report["tables"][name]["reasons"] == reasons
        assert report["tables"][name]["rows_out"] == len(getattr(logs, name)) - followers
    assert report["tables"]["exposures"]["quarantined"] == 5


def test_a_listed_item_that_is_refused_leaves_its_list_and_the_list_goes_on(tmp_path):
    logs = small()
    one, other, lone = logs.candidates[:3]
    bad = {"price": (one, {"price": -1.0}), "future": (other, {"valid_from": FIRST_DAY + timedelta(days=99)})}
    for name, (row, fault) in bad.items():
        logs.items.append({**logs.items[0], "item_id": name, **fault})
        row["item_ids"], row["scores"] = [name, *row["item_ids"]], [0.5, *row["scores"]]
    one["item_ids"][-1] = "nothing"
    lone["item_ids"], lone["scores"] = ["nowhere"], None
    report = run(logs, tmp_path)
    assert report["tables"]["candidates"]["reasons"] == {"lists no valid item": 1}
    found = report["tables"]["listed_items"]
    assert found["reasons"] == {
        "refers to unknown items.item_id": 2,
        "refers to a quarantined row of items": 1,
        "listed before the item's first version": 1,
    }
    clean = {row["request_id"]: row for row in read(tmp_path / "clean", "candidates").to_pylist()}
    assert found["rows_in"] == sum(len(row["item_ids"]) for row in logs.candidates) == found["rows_out"] + 4
    assert found["rows_out"] == sum(len(row["item_ids"]) for row in clean.values())
    assert clean[one["request_id"]]["item_ids"] == one["item_ids"][1:-1]
    assert clean[one["request_id"]]["scores"] == pytest.approx(one["scores"][1:-1])
    assert clean[other["request_id"]]["item_ids"] == other["item_ids"][1:] and lone["request_id"] not in clean
    refused = pq.read_table(tmp_path / "clean" / "quarantine" / "listed_items.parquet")
    assert sorted(refused["item_id"].to_pylist()) == ["future", "nothing", "nowhere", "price"]
    (whole,) = pq.read_table(tmp_path / "clean" / "quarantine" / "candidates.parquet").to_pylist()
    assert whole["item_ids"] == ["nowhere"] and whole["reason"] == "lists no valid item"


def test_too_large_a_share_stops_the_run_and_keeps_the_evidence(tmp_path):
    logs = spoil(small(), "NaN price")
    with pytest.raises(DataError, match=r"items: 1 of 61 rows \(1\.6%\).*price is not finite \(1\)"):
        run(logs, tmp_path, IngestConfig(max_quarantine_share=0.01, max_query_length=256))
    assert not (tmp_path / "clean").exists()
    assert len(pq.read_table(tmp_path / "clean-rejected" / "quarantine" / "items.parquet")) == 1
    assert read_json(tmp_path / "clean-rejected" / "report.json")["tables"]["items"]["quarantined"] == 1


def test_a_missing_table_is_named(tmp_path):
    logs = small()
    logs.events = []
    with pytest.raises(DataError, match="no table events"):
        run(logs, tmp_path)


def test_candidates_may_be_missing(tmp_path):
    logs = small()
    logs.candidates = []
    logs.description = replace(DESCRIPTION, has_candidates=False)
    report = run(logs, tmp_path)
    assert "candidates" not in report["tables"] and report["tables"]["requests"]["rows_out"] == 60


def rewrite(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def test_a_missing_column_is_named(tmp_path):
    folder = small().write(tmp_path / "logs")
    rewrite(folder / "items.parquet", lambda rows: rows.drop_columns(["price"]))
    with pytest.raises(DataError, match="items: no column price"):
        ingest(LENIENT, folder, tmp_path / "clean")


def test_a_declared_column_must_be_there_and_an_undeclared_one_is_left_behind(tmp_path):
    folder = small().write(tmp_path / "logs")
    rewrite(folder / "users.parquet", lambda rows: rows.rename_columns({"gender": "sex"}))
    with pytest.raises(DataError, match="users: no column gender"):
        ingest(LENIENT, folder, tmp_path / "clean")
    replace(DESCRIPTION, profile=()).save(folder)
    report = ingest(LENIENT, folder, tmp_path / "clean")
    assert report["warnings"] == ["users: dropped columns ['sex'], which description.json does not name"]


def test_a_wrong_type_is_named(tmp_path):
    folder = small().write(tmp_path / "logs")
    rewrite(
        folder / "items.parquet",
        lambda rows: rows.set_column(rows.column_names.index("price"), "price", pc.cast(rows["price"], pa.string())),
    )
    with pytest.raises(DataError, match=r"items\.price is VARCHAR, expected DOUBLE"):
        ingest(LENIENT, folder, tmp_path / "clean")


def test_safe_casts_are_made_and_unsafe_values_kept_in_quarantine(tmp_path):
    folder = small().write(tmp_path / "logs")
    path = next((folder / "exposures").rglob("*.parquet"))

    def widen(rows):
        positions = pa.array([5_000_000_000, *rows["position"].to_pylist()[1:]], pa.int64())
        return rows.set_column(rows.column_names.index("position"), "position", positions)

    rewrite(path, widen)
    report = ingest(LENIENT, folder, tmp_path / "clean")
    assert report["tables"]["exposures"]["reasons"] == {"position is not INTEGER": 1}
    kept = pq.read_table(tmp_path / "clean" / "quarantine" / "exposures.parquet")
    assert "5000000000" in kept["original"][0].as_py()
    assert read(tmp_path / "clean", "exposures").schema.field("position").type == pa.int32()


def test_naive_times_count_as_utc_and_rows_move_to_their_day(tmp_path):
    folder = small().write(tmp_path / "logs")
    before = read(folder, "requests").sort_by("request_id")
    naive = before.set_column(4, "ts", pc.cast(before["ts"], pa.timestamp("ns")))
    for path in (folder / "requests").rglob("*.parquet"):
        path.unlink()
    pq.write_table(naive, folder / "requests" / "all.parquet")
    ingest(LENIENT, folder, tmp_path / "clean")
    after = read(tmp_path / "clean", "requests").sort_by("request_id")
    assert after["ts"].equals(before["ts"])
    for path in (tmp_path / "clean" / "requests").rglob("*.parquet"):
        assert {f"day={ts:%Y-%m-%d}" for ts in pq.read_table(path, partitioning=None)["ts"].to_pylist()} == {
            path.parent.name
        }


def test_an_unreadable_file_is_named(tmp_path):
    folder = small().write(tmp_path / "logs")
    (folder / "items.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="items cannot be read") as caught:
        ingest(LENIENT, folder, tmp_path / "clean")
    assert "\n" not in str(caught.value) and "DESCRIBE" not in str(caught.value)  # nothing of the SQL


def test_a_table_in_another_format_is_named(tmp_path):
    folder = small().write(tmp_path / "logs")
    (folder / "items.parquet").rename(folder / "items.csv")
    with pytest.raises(DataError, match=r"expected \S+/items\.parquet as Parquet, there is items\.csv"):
        ingest(LENIENT, folder, tmp_path / "clean")


def test_a_folder_without_a_description_says_where_to_read_on(tmp_path):
    with pytest.raises(DataError, match=r"docs/your-own-logs\.md says what one holds"):
        ingest(LENIENT, tmp_path, tmp_path / "clean")


def test_items_without_what_the_description_promises_are_counted(tmp_path):
    logs = small()
    for row in logs.items:
        row["embedding"] = None
    logs.items[0]["title"] = None
    count = len(logs.items)
    assert run(logs, tmp_path)["warnings"] == [
        f"{count} of {count} item versions have no embedding: set has_embeddings to false in description.json",
        f"1 of {count} item versions have no title",
    ]


def test_an_empty_day_and_an_empty_domain_are_reported(tmp_path):
    logs = small()
    gone = {
        row["request_id"]
        for row in logs.requests
        if row["domain"] == "recommendation" or row["ts"].date() == (FIRST_DAY + timedelta(days=2)).date()
    }
    for name in ("requests", "candidates", "exposures", "events"):
        setattr(logs, name, [row for row in getattr(logs, name) if row["request_id"] not in gone])
    report = run(logs, tmp_path)
    assert report["warnings"] == ["no request on 2026-01-07", "no row of requests has domain recommendation"]


def test_a_day_whose_events_are_hours_late_is_reported(tmp_path):
    """No rule forbids it: a click may follow its request by eight hours, but not all clicks of one day alone."""
    logs = random_logs(requests=1000)
    asked = {row["request_id"]: row["ts"].date() for row in logs.requests}
    shifted = (FIRST_DAY + timedelta(days=6)).date()
    for row in logs.events:
        if row["type"] == "click" and asked.get(row["request_id"]) == shifted:
            row["ts"] += timedelta(hours=8)
    (warning,) = run(logs, tmp_path)["warnings"]
    assert re.fullmatch(r"click events of 2026-01-11 follow their requests by 8\.\d h, .* another time zone\?", warning)


def test_logs_without_a_task_have_no_delays(tmp_path):
    logs = small()
    logs.description = replace(DESCRIPTION, tasks={})
    assert run(logs, tmp_path)["warnings"] == []


def test_no_valid_request_stops_the_run(tmp_path):
    logs = small()
    for row in logs.requests:
        row["user_id"] = None
    with pytest.raises(DataError, match="no valid request"):
        run(logs, tmp_path)
