"""The simulated logs keep the log contract, and are the same for the same seed."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from simulation import tables
from simulation.marketplace import write_logs
from simulation.world import DAY
from tests.simulation.conftest import read
from uniscale.artifacts import content_hash
from uniscale.config import load_config
from uniscale.logs import TABLES, LogDescription

TINY = ("simulation.users=40", "simulation.items=60", "simulation.days=6", "simulation.candidates=12")


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    config = load_config(overrides=TINY).simulation
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_logs(config, seed, tmp_path / name)
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    for table in ("users.parquet", "items.parquet", "requests", "events"):
        assert content_hash(tmp_path / "a" / table) != content_hash(tmp_path / "c" / table)


@pytest.mark.parametrize("table", TABLES)
def test_columns_and_types_are_the_contracts(logs, table):
    path = next(logs.glob(f"{table}.parquet"), None) or next((logs / table).glob("*/*.parquet"))
    written = pq.read_schema(path)
    wanted = [(column.name, column.type) for column in TABLES[table].columns]
    wanted += [(name, pa.string()) for name in {"users": tables.PROFILE, "requests": tables.CONTEXT}.get(table, ())]
    assert [(field.name, field.type) for field in written] == wanted


@pytest.mark.parametrize("table", TABLES)
def test_keys_are_unique_and_columns_within_their_ranges(logs, table):
    rows = read(logs, table)
    assert rows.num_rows > 0
    assert rows.group_by(list(TABLES[table].key)).aggregate([]).num_rows == rows.num_rows
    for column in TABLES[table].columns:
        values = rows[column.name]
        assert column.nullable or values.null_count == 0, column.name
        if column.minimum is not None:
            assert pc.min(values).as_py() >= column.minimum
        if column.max_length is not None:
            assert pc.max(pc.utf8_length(values)).as_py() <= column.max_length


@pytest.mark.parametrize("table", TABLES)
def test_references_hold(logs, table):
    rows = read(logs, table)
    for column in TABLES[table].columns:
        if column.refers_to:
            other, key = column.refers_to.split(".")
            known = pc.is_in(rows[column.name].drop_null(), read(logs, other)[key].combine_chunks())
            assert pc.all(known).as_py(), f"{table}.{column.name}"


def test_lists_refer_to_items_and_hold_none_twice(logs):
    for table in ("candidates", "truth"):
        rows = read(logs, table)
        flat = pc.list_flatten(rows["item_ids"])
        assert pc.all(pc.is_in(flat, read(logs, "items")["item_id"].combine_chunks())).as_py()
        assert all(len(set(ids)) == len(ids) for ids in rows["item_ids"].to_pylist())


def test_exposed_search_items_are_candidates(logs):
    listed = dict(zip(*(read(logs, "candidates")[c].to_pylist() for c in ("request_id", "item_ids")), strict=True))
    search = [row for row in read(logs, "exposures").to_pylist() if row["request_id"] in listed]
    assert search and all(row["item_id"] in listed[row["request_id"]] for row in search)


def test_positions_count_from_one_without_gaps(logs):
    grouped = read(logs, "exposures").group_by("request_id").aggregate([("position", "max"), ("position", "count")])
    assert grouped["position_max"].to_pylist() == grouped["position_count"].to_pylist()


def test_partitions_are_the_days_of_their_requests_and_events(logs, config, world):
    day_of = {}
    for table in ("requests", "events"):
        rows = read(logs, table)
        assert rows["day"].to_pylist() == pc.strftime(rows["ts"], "%Y-%m-%d").to_pylist()
        day_of[table] = set(rows["day"].to_pylist())
    every = {world.date(day).isoformat() for day in range(config.simulation.days)}
    assert day_of["requests"] == every and day_of["events"] <= every
    days = dict(zip(*(read(logs, "requests")[c].to_pylist() for c in ("request_id", "day")), strict=True))
    for table in ("exposures", "candidates", "truth"):
        rows = read(logs, table)
        assert [days[request] for request in rows["request_id"].to_pylist()] == rows["day"].to_pylist()


def test_causes_come_before_effects(logs, config, world):
    requests, exposures, events = (read(logs, table) for table in ("requests", "exposures", "events"))
    users, items = read(logs, "users"), read(logs, "items")
    asked = requests.select(["request_id", "user_id", "ts"]).join(users.select(["user_id", "registered_at"]), "user_id")
    assert pc.all(pc.less(asked["registered_at"], asked["ts"])).as_py()
    shown = exposures.rename_columns({"ts": "shown_at"}).select(["request_id", "item_id", "shown_at"])
    on_sale = shown.join(items.select(["item_id", "valid_from"]), "item_id")
    assert pc.all(pc.less_equal(on_sale["valid_from"], on_sale["shown_at"])).as_py()
    logged = events.filter(pc.field("request_id").is_valid())
    after = logged.select(["request_id", "item_id", "ts"]).join(shown, ["request_id", "item_id"], join_type="inner")
    assert after.num_rows == logged.num_rows  # every event of a request is on an item it showed
    assert pc.all(pc.less(after["shown_at"], after["ts"])).as_py()
    last = pc.max(events["ts"].cast(pa.int64())).as_py()
    assert last < world.midnight(0) + config.simulation.days * DAY


def test_counts_are_those_of_the_files(logs, counts):
    for table in (*TABLES, "truth"):
        assert counts[table] == read(logs, table).num_rows
    kinds = dict(zip(*np.unique(read(logs, "events")["type"].to_pylist(), return_counts=True), strict=True))
    assert {name: counts[f"events.{name}"] for name in kinds} == kinds


def test_description_names_what_is_there(logs):
    description = LogDescription.load(logs)
    assert description.target == "search" and description.has_truth
    assert list(description.tasks.items()) == [("click", "click"), ("conversion", "purchase")]
    requests = read(logs, "requests")
    assert set(requests["domain"].to_pylist()) == set(description.domains)
    assert set(pc.list_flatten(requests["scenario"]).to_pylist()) == set(description.scenarios)
    assert set(description.context) <= set(requests.column_names)
    assert set(description.profile) <= set(read(logs, "users").column_names)


@pytest.mark.parametrize("size", ["items=50", "candidates=200", "exposed=2", "embedding_dim=2"])
def test_small_and_odd_sizes_work(tmp_path, size):
    config = load_config(overrides=(*TINY, f"simulation.{size}")).simulation
    counts = write_logs(config, 3, tmp_path / "logs")
    lengths = pc.list_value_length(read(tmp_path / "logs", "candidates")["item_ids"])
    assert pc.max(lengths).as_py() <= min(config.candidates, config.items)
    assert 0 < counts["exposures"] <= counts["requests"] * config.exposed
