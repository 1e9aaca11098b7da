"""The live loop: the payload, the logs it writes, common random numbers, and rankers that fail."""

import json
import random
import threading
import time
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulation.live import run_live
from simulation.marketplace import write_logs
from simulation.queries import attempt_of
from tests.simulation.conftest import read
from uniscale.artifacts import content_hash
from uniscale.config import load_config
from uniscale.errors import DataError, ServingError
from uniscale.logs import TABLES


def answer(payload, ids, variant="champion"):
    items = [{"item_id": item, "score": -float(place)} for place, item in enumerate(ids[: payload["top_k"]])]
    return {"request_id": payload["request_id"], "variant": variant, "items": items}


def by_retrieval(payload):
    return answer(payload, payload["item_ids"])


def by_chance(payload):
    ids = sorted(payload["item_ids"])
    random.Random(payload["request_id"]).shuffle(ids)
    return answer(payload, ids, variant="random")


@pytest.fixture(scope="module")
def live(config, logs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    seen, days = [], []

    def rank(payload):
        seen.append(payload)
        return by_retrieval(payload)

    summary = run_live(config, logs, rank, folder / "a", feed=days.append)
    return folder / "a", summary, seen, days


def test_the_payload_is_json_and_complete(live, config, logs):
    _, summary, seen, _ = live
    assert len(seen) == summary["requests"] > 100
    users = set(read(logs, "users")["user_id"].to_pylist())
    for payload in seen:
        assert json.loads(json.dumps(payload)) == payload
        assert set(payload) == {"request_id", "user_id", "query", "scenario", "context", "item_ids", "top_k", "ts"}
        assert payload["user_id"] in users and payload["query"] and payload["scenario"]
        assert list(payload["context"]) == ["device"] and payload["top_k"] == config.simulation.exposed
        assert len(payload["item_ids"]) == config.simulation.candidates
        assert datetime.fromisoformat(payload["ts"]).utcoffset().total_seconds() == 0


def test_it_writes_the_days_after_the_logs_in_the_contract(live, world, config, logs):
    folder, summary, seen, days = live
    for table in TABLES.values():
        rows = read(folder, table.name)
        assert set(read(logs, table.name).column_names) == set(rows.column_names)
        assert rows.num_rows == rows.group_by(list(table.key)).aggregate([]).num_rows
    first = config.simulation.days
    wanted = {world.date(day).isoformat() for day in range(first, first + config.experiment.days)}
    assert set(read(folder, "requests")["day"].to_pylist()) == wanted
    assert not set(read(logs, "requests")["request_id"].to_pylist()) & {p["request_id"] for p in seen}
    assert summary["failed"] == 0 and set(summary["variants"]) == {"champion"}
    assert summary["variants"]["champion"]["requests"] == len(seen)
    known = ("user_id", "item_id", "ts", "type")
    fed = sorted(tuple(row[name] for name in known) for table in days for row in table.to_pylist())
    assert fed == sorted(tuple(row[name] for name in known) for row in read(folder, "events").to_pylist())


def test_a_days_behaviours_are_fed_while_the_day_goes_on(config, logs, tmp_path):
    order = []

    def rank(payload):
        order.append(payload["ts"])
        return by_retrieval(payload)

    run_live(config, logs, rank, tmp_path / "live", feed=lambda events: order.append(events))
    fed = [place for place, entry in enumerate(order) if isinstance(entry, pa.Table)]
    assert len(fed) > 2 * config.experiment.days
    assert any(not isinstance(entry, pa.Table) for entry in order[fed[0] : fed[1]])


def test_exposures_are_what_was_answered_in_its_order(live):
    folder, _, seen, _ = live
    shown = {}
    for row in sorted(read(folder, "exposures").to_pylist(), key=lambda row: row["position"]):
        shown.setdefault(row["request_id"], []).append(row["item_id"])
    assert shown == {payload["request_id"]: payload["item_ids"][: payload["top_k"]] for payload in seen}


def test_outcomes_do_not_depend_on_the_order_of_answers(live, config, logs, tmp_path):
    lock, calls = threading.Lock(), []

    def slow_at_times(payload):
        with lock:
            calls.append(payload)
            late = len(calls) % 7 == 0
        time.sleep(0.002 * late)
        return by_retrieval(payload)

    run_live(config, logs, slow_at_times, tmp_path / "b", concurrency=4)
    assert content_hash(tmp_path / "b") == content_hash(live[0])


def test_truth_beats_chance_on_the_same_requests(live, config, logs, tmp_path):
    folder, _, seen, _ = live
    truth = {row["request_id"]: row for row in read(folder, "truth").to_pylist()}

    def by_truth(payload):
        row = truth.get(payload["request_id"])
        if row is None:  # a reformulation that the first run did not see
            return by_retrieval(payload)
        merit = dict(zip(row["item_ids"], row["click_probability"], strict=True))
        return answer(payload, sorted(payload["item_ids"], key=lambda item: -merit[item]))

    best = run_live(config, logs, by_truth, tmp_path / "best")
    chance = run_live(config, logs, by_chance, tmp_path / "chance")
    clicks = [s["variants"][v]["clicks"] / s["requests"] for s, v in ((best, "champion"), (chance, "random"))]
    assert clicks[0] > 1.5 * clicks[1]
    # the first queries of both runs are the same: rankings differ, users do not
    asked = [set(read(tmp_path / name, "requests")["request_id"].to_pylist()) for name in ("best", "chance")]
    first = {payload["request_id"] for payload in seen if attempt_of(int(payload["request_id"][1:])) == 0}
    assert first <= asked[0] & asked[1]


def test_failures_are_counted_and_leave_no_exposure(config, logs, tmp_path):
    broken = {0: None, 1: "unknown", 2: "twice", 3: "empty"}

    def rank(payload):
        kind = broken.get(sum(map(ord, payload["request_id"])) % 8, "fine")
        if kind is None:
            raise ServingError("the service is gone")
        ids = payload["item_ids"]
        picked = {"unknown": ["nobody's"], "twice": [ids[0], ids[0]], "empty": []}.get(kind, ids)
        return answer(payload, picked)

    summary = run_live(config, logs, rank, tmp_path / "live")
    assert 0.2 * summary["requests"] < summary["failed"] < 0.8 * summary["requests"]
    assert sum(summary["failures"].values()) == summary["failed"]
    assert any("the service is gone" in reason for reason in summary["failures"])
    shown = set(read(tmp_path / "live", "exposures")["request_id"].to_pylist())
    assert len(shown) == summary["requests"] - summary["failed"] == summary["variants"]["champion"]["requests"]
    clicked = read(tmp_path / "live", "events")["request_id"].drop_null().to_pylist()
    assert set(clicked) <= shown


def test_nothing_but_failures_stops_with_their_reason(config, logs, tmp_path):
    def rank(payload):
        raise ServingError("no service at http://nowhere")

    with pytest.raises(ServingError, match=r"all of the first \d+ requests failed.*no service at http://nowhere"):
        run_live(config, logs, rank, tmp_path / "live")
    assert not (tmp_path / "live").exists()


def test_logs_of_another_marketplace_are_refused(config, logs, tmp_path):
    with pytest.raises(DataError, match="not those of simulation config and seed 8"):
        run_live(config.model_copy(update={"seed": 8}), logs, by_retrieval, tmp_path / "live")
    with pytest.raises(DataError, match="holds no simulated logs"):
        run_live(config, tmp_path, by_retrieval, tmp_path / "live")


def test_validated_logs_in_another_order_are_the_same_marketplace(config, logs, tmp_path):
    for part in ("requests", "description.json"):
        (tmp_path / part).symlink_to(logs / part)
    for name in ("users.parquet", "items.parquet"):
        table = pq.read_table(logs / name)
        strict = pa.schema([field.with_nullable(table[field.name].null_count > 0) for field in table.schema])
        turned = pa.concat_tables([table.slice(50), table.slice(0, 50)]).cast(strict)
        pq.write_table(turned, tmp_path / name)
    assert run_live(config, tmp_path, by_retrieval, tmp_path / "live")["failed"] == 0


def test_new_users_of_the_last_day_can_come_back(tmp_path):
    tiny = load_config(
        overrides=("simulation.users=30", "simulation.items=60", "simulation.days=5", "experiment.days=1")
    )
    write_logs(tiny.simulation, tiny.seed, tmp_path / "logs")
    summary = run_live(tiny, tmp_path / "logs", by_retrieval, tmp_path / "live")
    assert summary["failed"] == 0
