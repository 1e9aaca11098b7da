"""Replay judges the served order by in-domain labels of test rows, and estimates clicks only where order was random."""

import json
from datetime import UTC, datetime

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving import replay as module
from serving.replay import read_shown, replay
from tests.sample_folder import SPEC, write_samples
from uniscale.artifacts import read_json
from uniscale.config import load_config
from uniscale.logs import LogDescription

CONFIG = load_config()


def write_logs(folder, samples, randomised=None):
    """Requests of the test rows with a context column; every second one is flagged as random."""
    description = LogDescription(
        name="tiny",
        domains=SPEC.domains,
        scenarios=SPEC.scenarios,
        tasks={"click": "click", "conversion": "purchase"},
        context=("device", "random"),
        randomised_column=randomised,
        limits=("a made-up log",),
    )
    folder.mkdir()
    description.save(folder)
    for day in sorted((samples / "rows").glob("day=*")):
        files = sorted(day.glob("domain=*/*.parquet"))
        table = pa.concat_tables([pq.ParquetFile(path).read(columns=["request_id"]) for path in files])
        table = table.append_column("device", [["phone"] * len(table)])
        table = table.append_column("random", [[str(number % 2) for number in range(len(table))]])
        (folder / "requests" / day.name).mkdir(parents=True)
        pq.write_table(table, folder / "requests" / day.name / "part-0.parquet")
    return folder


def serve(order, monkeypatch, seen):
    """A service in memory: `order` sorts the item ids; variant by the user id's last digit."""

    def answer(request):
        body = json.loads(request.content)
        seen.append(body)
        items = [{"item_id": item_id, "score": 0.5} for item_id in order(body)]
        variant = "champion" if int(body["user_id"][1:]) % 2 else "candidate"
        return httpx.Response(200, json={"items": items, "variant": variant, "fallback": None, "unknown_items": []})

    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(module, "client", lambda url: httpx.Client(base_url=url, transport=transport))


@pytest.fixture
def samples(tmp_path):
    return write_samples(tmp_path / "samples", requests_per_day=20)


def test_only_exposed_candidates_of_test_requests_and_their_own_labels(samples):
    shown = read_shown(samples, requests=1000)
    splits = read_json(samples / "manifest.json")["splits"]
    days = {f"{row['ts']:%Y-%m-%d}" for row in shown.requests}
    assert days <= {splits["test"][0], splits["test"][1]} and len(shown.requests) == 40
    files = [path for day in days for path in (samples / "rows" / f"day={day}").glob("domain=search/*.parquet")]
    rows = {row["request_id"]: row for path in files for row in pq.ParquetFile(path).read().to_pylist()}
    for place, request in enumerate(shown.requests):
        row = rows[request["request_id"]]
        exposed = [i for i, position in enumerate(row["position"]) if position > 0]
        start, end = shown.offsets[place], shown.offsets[place + 1]
        assert shown.item_ids[start:end] == [f"i{row['item'][i]}" for i in exposed]
        assert shown.labels["click"][start:end].tolist() == [row["click"][i] for i in exposed]
        assert shown.position[start:end].tolist() == list(range(1, len(exposed) + 1))


def test_a_smaller_number_is_a_part_of_the_larger_and_always_the_same(samples):
    few, all_of_them = read_shown(samples, 5), read_shown(samples, 1000)
    ids = {row["request_id"] for row in few.requests}
    assert len(ids) == 5 and ids <= {row["request_id"] for row in all_of_them.requests}
    assert few.requests == read_shown(samples, 5).requests


def test_requests_go_out_as_they_were_asked(samples, tmp_path, monkeypatch):
    seen = []
    serve(lambda body: body["item_ids"], monkeypatch, seen)
    replay(CONFIG, write_logs(tmp_path / "logs", samples), samples, "http://service", tmp_path / "out")
    shown = {row["request_id"]: row for row in read_shown(samples, 1000).requests}
    assert len(seen) == len(shown)
    for body in seen:
        row = shown[body["request_id"]]
        assert (body["user_id"], body["query"], body["scenario"]) == (row["user_id"], row["query"], row["scenario"])
        assert datetime.fromisoformat(body["ts"]) == row["ts"].astimezone(UTC)
        assert body["context"]["device"] == "phone"


def test_a_perfect_order_scores_one_and_its_reverse_zero(samples, tmp_path, monkeypatch):
    shown = read_shown(samples, 1000)
    ids = [row["request_id"] for row, n in zip(shown.requests, np.diff(shown.offsets), strict=True) for _ in range(n)]
    clicked = {
        (request, item) for request, item, y in zip(ids, shown.item_ids, shown.labels["click"], strict=True) if y
    }
    logs = write_logs(tmp_path / "logs", samples)
    for sign, value in ((-1, 1.0), (1, 0.0)):
        best_first = lambda body, sign=sign: sorted(  # noqa: E731
            body["item_ids"], key=lambda item: sign * ((body["request_id"], item) in clicked)
        )
        serve(best_first, monkeypatch, [])
        report = replay(CONFIG, logs, samples, "http://service", tmp_path / "out")
        for variant in ("all", "champion", "candidate"):
            assert report["metrics"][variant]["click"]["request_auc"] == value
        assert (report["metrics"]["all"]["click"]["ndcg@10"] == 1.0) == (value == 1.0)
    counts = [report["metrics"][name]["requests"] for name in ("champion", "candidate", "all")]
    assert counts[0] + counts[1] == counts[2] == 40
    ranks = pq.read_table(tmp_path / "out" / "ranks.parquet")
    assert ranks.num_rows == report["candidates"] and set(ranks["variant"].to_pylist()) == {"champion", "candidate"}
    assert "no online A/B possible" in report["online_ab"] and "a made-up log" in report["limits"]


def test_clicks_are_estimated_only_where_the_order_was_random(samples, tmp_path, monkeypatch):
    serve(lambda body: body["item_ids"], monkeypatch, [])
    without = replay(CONFIG, write_logs(tmp_path / "plain", samples), samples, "http://service", tmp_path / "out")
    assert without["off_policy"]["estimates"] is None and "random" in without["off_policy"]["why_not"]
    logs = write_logs(tmp_path / "random", samples, randomised="random")
    found = replay(CONFIG, logs, samples, "http://service", tmp_path / "out")["off_policy"]
    assert 0 < found["requests"] < 40 and len(found["assumptions"]) == 3
    # Served as logged, every position agrees; the estimate is what the log earned.
    whole = found["estimates"]["all"]
    assert whole["requests"] == found["requests"] and whole["snips"] == pytest.approx(whole["logged"], rel=0.2)


def test_the_randomised_flag_is_never_sent_as_a_feature(samples, tmp_path, monkeypatch):
    seen = []
    serve(lambda body: body["item_ids"], monkeypatch, seen)
    replay(CONFIG, write_logs(tmp_path / "logs", samples, "random"), samples, "http://service", tmp_path / "out")
    assert all(body["context"].keys() == {"device"} for body in seen)
