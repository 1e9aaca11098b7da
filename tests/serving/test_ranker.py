"""One request's path: its user's variant, fallbacks that say so, refusals with a remedy, each answer logged."""

import asyncio
import threading
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.rows import ItemVectors
from models.zoo import build_model
from serving.deployment import Deployment
from serving.engine import Engine
from serving.inputs import FeatureStoreError, UserInputs
from serving.items import Catalogue, Snapshot
from serving.log_writer import LogWriter
from serving.ranker import Ranker
from serving.routing import Routing, Target
from serving.schemas import RankRequest
from serving.served_model import ServedModel
from serving.switch import Switch
from serving.telemetry import STAGES, Telemetry
from tests.sample_folder import SPEC, write_samples
from tests.serving.raw import items_raw
from uniscale.assignment import assign
from uniscale.config import load_config
from uniscale.serving_log import SHADOW_SCHEMA, SHADOWS

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
CONFIG = load_config(overrides=["model.table_rows=256", "model.embedding_dim=4", "serving.deadline_ms=60000"])
VECTOR = np.zeros((1, SPEC.text_dim), np.float32)


class Users:
    """A feature store in memory; `error` is raised, `wait` is waited for."""

    def __init__(self):
        self.error, self.wait, self.reading = None, None, threading.Event()

    def read(self, user_id, query, asked):
        self.reading.set()
        if self.wait is not None:
            self.wait.wait(10)
        if self.error is not None:
            raise self.error
        return UserInputs(SPEC)({"user_id": user_id, "query": query})


class NoText:
    def encode(self, texts):
        return VECTOR


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    torch.set_num_threads(1)
    samples = write_samples(tmp_path_factory.mktemp("samples"), requests_per_day=3, days=4)
    models = {version: ServedModel(build_model("dlrm_mlp", SPEC, CONFIG.model, seed=int(version))) for version in "12"}
    return Engine(SPEC, ItemVectors.load(samples, SPEC), NoText()), models, samples


def make_ranker(engine, folder, shadow=None, rng=None, mode="split", **serving) -> tuple[Ranker, Users]:
    """`shadow` is a scorer that a shadow variant `next`, version s, holds; its log is `folder/_shadows`."""
    scorer, models, samples = engine
    items = pq.ParquetFile(samples / "items.parquet").read()
    raw = items_raw(60).set_column(4, "item_clicks_7d", [np.arange(60, dtype=np.float32)])
    users = Users()
    deployment = Deployment(
        tag="uniscale_ranker:test",
        versions={"champion": "1", "candidate": "2"},
        weights={"champion": 0.5, "candidate": 0.5},
        mode=mode,
        salt="salt",
        domain="search",
        scenarios=list(SPEC.scenarios),
        tasks=list(SPEC.tasks),
        services=[],
        views=[],
        popularity="item_clicks_7d",
        source_hash="0",
        serving=CONFIG.serving.model_copy(update=serving),
    )
    snapshot = Snapshot(lambda share: Catalogue.from_tables(SPEC, raw, items, "item_clicks_7d"), 300)
    log = LogWriter(folder, interval_seconds=60)
    routing, models = Routing.of(deployment), {**models, "s": shadow}
    if shadow is not None:
        routing = routing.checked(shadows={"next": Target(version="s", folder="s")})
    switch = Switch(routing, lambda target: models[target.version])
    shadow_log = LogWriter(folder / SHADOWS, interval_seconds=60, schema=SHADOW_SCHEMA)
    parts = (deployment, scorer, switch, snapshot, users, log, Telemetry())
    return Ranker(*parts, now=lambda: NOW, shadow_log=shadow_log, rng=rng), users


@pytest.fixture
def ranker(engine, tmp_path):
    made, users = make_ranker(engine, tmp_path / "log")
    yield made, users
    made.close()


def ask(ranker: Ranker, **fields):
    request = RankRequest.model_validate({"user_id": "u1", "item_ids": ["i1", "i2", "i3"], **fields})
    return asyncio.run(ranker.rank(request))


def rows(folder):
    return [row for path in sorted(folder.glob("day=*/*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def test_users_keep_the_variant_of_the_assignment(ranker):
    service, _ = ranker
    for number in range(30):
        answer = ask(service, user_id=f"u{number}").body
        assert answer["variant"] == assign(f"u{number}", "salt", {"champion": 0.5, "candidate": 0.5})
        assert answer["version"] == {"champion": "1", "candidate": "2"}[answer["variant"]]
        assert answer["fallback"] is None and [item["score"] for item in answer["items"]] == sorted(
            (item["score"] for item in answer["items"]), reverse=True
        )


def test_top_k_cuts_the_same_order(ranker):
    service, _ = ranker
    assert ask(service, top_k=2).body["items"] == ask(service).body["items"][:2]


def test_an_answer_says_what_its_stages_took_and_a_fallback_only_the_whole(ranker):
    service, users = ranker

    def stages():
        parts = ask(service).headers["Server-Timing"].split(", ")
        return {name: float(duration) for name, duration in (part.split(";dur=") for part in parts)}

    whole = stages()
    assert tuple(whole) == STAGES
    total = whole.pop("total")
    assert 0 < sum(whole.values()) <= total + 0.001 * len(STAGES)  # each is rounded to microseconds
    users.error = FeatureStoreError("down")
    assert tuple(stages()) == ("total",)


def test_feature_store_failure_falls_back_to_popularity_and_recovers(ranker):
    service, users = ranker
    users.error = FeatureStoreError("down")
    answer = ask(service, item_ids=["i1", "i9", "new", "i5"])
    assert answer.status == 200 and answer.body["fallback"] == "features"
    assert [item["item_id"] for item in answer.body["items"]] == ["i9", "i5", "i1", "new"]
    assert all(item["score"] is None for item in answer.body["items"])
    users.error = None
    assert ask(service).body["fallback"] is None


def test_a_model_that_fails_falls_back_too(ranker, caplog):
    service, users = ranker
    users.error = ZeroDivisionError("a defect")
    answer = ask(service)
    assert answer.body["fallback"] == "model" and "a defect" in caplog.text


def test_past_the_deadline_popularity_answers_while_the_work_goes_on(engine, tmp_path):
    service, users = make_ranker(engine, tmp_path, deadline_ms=20)
    users.wait = threading.Event()
    answer = ask(service, item_ids=["i1", "i9"])
    assert answer.status == 200 and answer.body["fallback"] == "deadline"
    assert [item["item_id"] for item in answer.body["items"]] == ["i9", "i1"]
    assert answer.body["latency_ms"] >= 20
    users.wait.set()
    service.close()


def test_more_than_is_accepted_is_told_to_come_back(engine, tmp_path):
    service, users = make_ranker(engine, tmp_path, max_concurrency=1)
    users.wait = threading.Event()

    async def both():
        first = asyncio.create_task(service.rank(RankRequest(user_id="u1", item_ids=["i1"])))
        await asyncio.to_thread(users.reading.wait, 10)
        second = await service.rank(RankRequest(user_id="u2", item_ids=["i1"]))
        users.wait.set()
        return await first, second

    accepted, refused = asyncio.run(both())
    assert accepted.status == 200
    assert refused.status == 429 and refused.headers == {"Retry-After": "1"} and "error" in refused.body
    service.close()
    assert [row["user_id"] for row in rows(tmp_path)] == ["u1"]


def test_the_clock_is_the_servers_unless_the_deployment_says_otherwise(engine, tmp_path):
    service, _ = make_ranker(engine, tmp_path, client_clock=False)
    refused = ask(service, ts=NOW)
    assert refused.status == 400 and "leave ts out" in refused.body["error"]
    assert ask(service).status == 200
    service.close()
    assert [row["ts"] for row in rows(tmp_path)] == [NOW]


def test_every_answer_is_logged_as_it_was_given(engine, tmp_path):
    service, users = make_ranker(engine, tmp_path)
    asked = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
    answer = ask(service, request_id="r1", query="q", scenario=["keyword"], item_ids=["i1", "new", "i2"], ts=asked).body
    users.error = FeatureStoreError("down")
    ask(service, request_id="r2", top_k=1)
    service.close()
    first, second = rows(tmp_path)
    assert first["item_ids"] == [item["item_id"] for item in answer["items"]]
    assert first["scores"] == pytest.approx([item["score"] for item in answer["items"]])
    expected = {
        "request_id": "r1",
        "ts": asked,
        "served_at": NOW,
        "query": "q",
        "scenario": ["keyword"],
        "candidates": 3,
    }
    assert expected.items() <= first.items() and first["features_hash"] != 0 and first["latency_ms"] > 0
    assert (first["variant"], first["version"], first["fallback"]) == (answer["variant"], answer["version"], None)
    assert second["fallback"] == "features" and second["item_ids"] == ["i3"] and second["candidates"] == 3


def samples_of(service) -> Counter:
    lines = [line.rpartition(" ") for line in service.telemetry.exposition().decode().splitlines() if line[0] != "#"]
    return Counter({name: float(value) for name, _, value in lines})


def test_metrics_count_answers_refusals_and_unknown_items(ranker):
    service, _ = ranker

    def one_of_each():
        ask(service, item_ids=[f"x{number}" for number in range(CONFIG.serving.max_candidates + 1)])
        return ask(service, item_ids=["i1", "new"]).body

    # Once Feast has made prometheus_client multi-process, a new series starts from the process's earlier count of it:
    # so every series is there before the counting begins.
    one_of_each()
    before = samples_of(service)
    answer = one_of_each()
    found = samples_of(service)
    found.subtract(before)
    labels = f'{{fallback="none",variant="{answer["variant"]}",version="{answer["version"]}"}}'
    names = [f"uniscale_answers_total{labels}", "uniscale_unknown_items_total", 'uniscale_refusals_total{status="400"}']
    names += [
        f'uniscale_stage_seconds_count{{stage="{name}"}}' for name in ("queue", "features", "batch", "model", "total")
    ]
    assert {name: found[name] for name in names} == dict.fromkeys(names, 1.0)


def test_closing_finishes_what_was_accepted(engine, tmp_path):
    service, users = make_ranker(engine, tmp_path)
    users.wait = threading.Event()

    async def main():
        accepted = asyncio.create_task(service.rank(RankRequest(user_id="u1", item_ids=["i1"])))
        await asyncio.to_thread(users.reading.wait, 10)
        users.wait.set()
        return await accepted

    assert asyncio.run(main()).body["fallback"] is None
    service.close()
    assert len(rows(tmp_path)) == 1


def test_a_batch_is_its_requests_asked_one_by_one(ranker):
    service, _ = ranker
    asked = [{"user_id": f"u{number}", "item_ids": ["i1", "i2", "i3"]} for number in range(4)]
    asked.insert(2, {"user_id": "u9", "item_ids": [f"x{number}" for number in range(3000)]})
    found = asyncio.run(service.rank_batch([RankRequest.model_validate(one) for one in asked]))
    assert [answer["status"] for answer in found] == [200, 200, 400, 200, 200]
    assert found[2]["answer"] is None and "3000 candidates" in found[2]["error"]
    for one, answer in zip(asked, found, strict=True):
        if answer["status"] == 200:
            alone = ask(service, **one).body
            assert answer["error"] is None and answer["answer"]["items"] == alone["items"]
            assert answer["answer"]["variant"] == alone["variant"]
