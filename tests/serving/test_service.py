"""The packaged service as a real BentoML process: answers, refusals, parity with the offline models, a clean stop.

One deployment of two small models on a small Feast store is built and started once for the whole module.
"""

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniscale.artifacts import read_json
from uniscale.assignment import assign
from uniscale.config import Config, load_config
from uniscale.logs import TIMESTAMP

pytestmark = pytest.mark.xdist_group("service")

SETTINGS = [
    "samples.warmup_days=1",
    "features.windows_days=[1, 7, 30]",
    "samples.valid_days=1",
    "samples.test_days=2",
    "features.text_dim=8",
    "model.table_rows=256",
    "model.embedding_dim=4",
    "model.hhsft.hfa_dim=16",
    "model.hhsft.gfa_dim=8",
    "serving.deadline_ms=20000",
    "serving.smoke_requests=10",
    "serving.smoke_candidates=20",
    "serving.log_flush_seconds=0.2",
]
JSON = {"Content-Type": "application/json"}
ASKED = datetime(2026, 1, 19, 8, 30, tzinfo=UTC)  # after the store's instant, so that nothing is cut


@dataclass
class Live:
    """The running service and what it was made of."""

    config: Config
    folder: Path
    url: str
    http: httpx.Client
    stop: ExitStack
    answered: list[str]

    def post(self, body, headers=JSON):
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.http.post("/rank", content=content, headers=headers)

    def rank(self, **fields):
        body = {"user_id": "u3", "query": "red shoe", "item_ids": [f"i{item}" for item in range(12)], **fields}
        body.setdefault("ts", ASKED.isoformat())
        answer = self.post(body)
        assert answer.status_code == 200, answer.text
        self.answered.append(answer.json()["request_id"])
        return answer.json()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    import torch

    from features.build import build_features
    from models.checkpoint import save_model
    from models.zoo import build_model
    from serving.deploy import package, running
    from tests.features.log_folder import random_logs
    from uniscale.samples import SampleSpec

    torch.set_num_threads(1)
    folder, config = tmp_path_factory.mktemp("service"), load_config(overrides=SETTINGS)
    build_features(config, random_logs().write(folder / "logs"), folder / "features")
    spec = SampleSpec.load(folder / "features")
    variants = {"champion": folder / "champion", "candidate": folder / "candidate"}
    for seed, (name, model) in enumerate(zip(("dlrm_mlp", "hhsft"), variants.values(), strict=True)):
        save_model(build_model(name, spec, config.model, seed), model, seed)
    package(config, folder / "features", variants, {"champion": "1", "candidate": "2"}, folder / "deployment")
    with ExitStack() as stack:
        url = stack.enter_context(running(config, folder / "deployment", folder / "log"))
        http = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        yield Live(config, folder, url, http, stack, [])


def test_a_request_is_answered_by_its_users_variant(live):
    for number in range(20):
        answer = live.rank(user_id=f"u{number}")
        assert answer["variant"] == assign(f"u{number}", live.config.experiment.salt, live.config.experiment.weights)
        assert answer["version"] == {"champion": "1", "candidate": "2"}[answer["variant"]]
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True) and len(scores) == 12
        assert answer["fallback"] is None and answer["unknown_items"] == []


def test_served_scores_are_those_of_the_exported_models_offline(live):
    """Batches made offline from point-in-time features of the same instant score as the service does over HTTP."""
    from features.store.retrieval import item_day_features, query_day_features, request_features
    from features.text import TextEncoder
    from models.checkpoint import load_model
    from models.rows import ItemVectors
    from serving.engine import Ask, Engine
    from serving.inputs import UserInputs
    from serving.items import Catalogue
    from uniscale.samples import SampleSpec

    features, deployment = live.folder / "features", live.folder / "deployment"
    spec = SampleSpec.load(features)
    models = {version: load_model(deployment / "models" / version) for version in ("1", "2")}
    engine = Engine(spec, ItemVectors.load(features, spec), TextEncoder.load(features / "text_encoder"))

    users, queries = [f"u{number}" for number in range(20)], ["red shoe", "lamp", "blue chair", "a new query"]
    items = pq.ParquetFile(features / "items.parquet").read()
    report = read_json(features / "report.json")

    def rows(name, values, instant="as_of"):
        ts = pa.repeat(pa.scalar(report[instant]).cast(TIMESTAMP), len(values))
        return pa.table({"row_id": np.arange(len(values)), name: values, "ts": ts})

    of_user = request_features(features, rows("user_id", users)).to_pylist()
    of_query = query_day_features(features, rows("query", queries)).to_pylist()
    of_item = item_day_features(features, rows("item_id", items["item_id"], "attributes_as_of"))
    statistics = item_day_features(features, rows("item_id", items["item_id"]))
    for name in (name for name in of_item.column_names if re.search(r"_\d+d$", name)):
        of_item = of_item.set_column(of_item.column_names.index(name), name, statistics[name])
    of_item = of_item.append_column("item_id", items["item_id"])
    catalogue = Catalogue.from_tables(spec, of_item, items, "item_clicks_30d")
    for number, user in enumerate(users):
        query = queries[number % len(queries)]
        raw = {**of_user[number], **of_query[number % len(queries)], "user_id": user, "query": query}
        asked = {
            "scenario": ["keyword"],
            "context": {"device": "phone"},
            "item_ids": [f"i{item}" for item in range(30)],
        }
        answer = live.rank(user_id=user, query=query, **asked)
        prepared = engine.prepare(Ask(user, query, ts=ASKED, **asked), UserInputs(spec)(raw), catalogue)
        offline = engine.rank(models[answer["version"]], prepared)
        served = {item["item_id"]: item["score"] for item in answer["items"]}
        worst = max(
            abs(served[item_id] - score) for item_id, score in zip(offline.item_ids, offline.scores, strict=True)
        )
        assert worst <= 1e-6, f"user {user}, query {query}"


def test_half_precision_on_disk_costs_little(live):
    from safetensors.numpy import load_file

    full = load_file(live.folder / "candidate" / "model.safetensors")
    half = load_file(live.folder / "deployment" / "models" / "2" / "model.safetensors")
    assert full.keys() == half.keys()
    for name, values in full.items():
        matrix = values.ndim >= 2 and values.dtype == np.float32
        assert half[name].dtype == (np.float16 if matrix else values.dtype), name
        np.testing.assert_allclose(half[name].astype(np.float64), values, rtol=1e-3, atol=1e-7, err_msg=name)


def test_fresh_behaviours_are_seen_by_the_next_request(live):
    from features.store.online import push_behaviours
    from serving.deploy import store_of

    before = live.rank(user_id="newcomer")
    event = {"user_id": "newcomer", "item_id": "i4", "ts": ASKED - timedelta(minutes=1), "type": "click"}
    events = pa.table({name: [value] for name, value in event.items()})
    push_behaviours(store_of(live.folder / "log"), events)
    after = live.rank(user_id="newcomer")
    assert [item["score"] for item in before["items"]] != [item["score"] for item in after["items"]]
    earlier = live.rank(user_id="newcomer", ts=(ASKED - timedelta(minutes=2)).isoformat())
    assert earlier["items"] == before["items"]  # what happened later than the request stays unseen


def test_unknown_users_items_and_queries_are_normal(live):
    answer = live.rank(user_id="nobody", query="פרח 👟", item_ids=["new", "i1", "i2"], scenario=["unheard of"])
    assert answer["fallback"] is None and answer["unknown_items"] == ["new"]
    assert answer["items"][-1] == {"item_id": "new", "score": None}


GOOD = {"user_id": "u1", "item_ids": ["i1", "i2"]}
BAD = {
    "empty body": (b"", JSON, 400),
    "no JSON": (b"{", JSON, 400),
    "not an object": (b"[1]", JSON, 400),
    "not UTF-8": (b'{"user_id": "\xff", "item_ids": ["i1"]}', JSON, 400),
    "deep nesting": (b"[" * 5000, JSON, 400),
    "unknown field": ({**GOOD, "boost": 1}, JSON, 400),
    "wrong type": ({**GOOD, "user_id": 7}, JSON, 400),
    "NaN": (b'{"user_id": "u1", "item_ids": ["i1"], "context": {"x": NaN}}', JSON, 400),
    "repeated item": ({**GOOD, "item_ids": ["i1", "i1"]}, JSON, 400),
    "no candidate": ({**GOOD, "item_ids": []}, JSON, 400),
    "long query": ({**GOOD, "query": "x" * 10_000}, JSON, 400),
    "ts out of range": ({**GOOD, "ts": "0001-01-01T00:00:00+14:00"}, JSON, 400),
    "2001 candidates": ({**GOOD, "item_ids": [f"i{item}" for item in range(2001)]}, JSON, 400),
    "100,000 candidates": ({**GOOD, "item_ids": [f"i{item}" for item in range(100_000)]}, JSON, 413),
    "a form": (b"user_id=u1", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "malformed multipart": (b"--x", {"Content-Type": "multipart/form-data; boundary=y"}, 415),
    "a pickle": (b"\x80\x04N.", {"Content-Type": "application/vnd.bentoml+pickle"}, 415),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_reason_and_does_no_harm(live, name):
    body, headers, status = BAD[name]
    answer = live.post(body, headers)
    assert answer.status_code == status and answer.json()["error"]
    assert live.rank()["fallback"] is None


def test_unknown_paths_and_methods_are_not_errors_of_the_server(live):
    assert live.http.get("/nothing").status_code == 404
    assert live.http.get("/rank").status_code == 405
    assert live.http.post("/nothing", content="{}", headers=JSON).status_code == 404


def test_pages(live):
    health = live.http.get("/healthz").json()
    assert health["versions"] == {"champion": "1", "candidate": "2"} and health["items"] == 30
    assert live.http.get("/readyz").json() == {"status": "ready"}
    metrics = live.http.get("/metrics").text
    assert 'uniscale_refusals_total{status="413"}' in metrics
    assert {line.split("{")[0].split(" ")[0] for line in metrics.splitlines() if "/nothing" in line} == set()


def test_smoke_passes(live):
    from serving.smoke import smoke

    report = smoke(live.config, live.url, live.folder / "deployment", live.folder / "smoke")
    assert report["passed"], {name: passed for name, passed in report["checks"].items() if not passed}
    assert report["requests"] == 10 and report["candidates"] == 20 and 0 < report["p50_ms"] <= report["p99_ms"]
    assert json.loads((live.folder / "smoke" / "smoke.json").read_text()) == report


def test_the_bento_is_whole_and_says_how_to_build_its_image(live):
    deployment = live.folder / "deployment"
    tag = json.loads((deployment / "deployment.json").read_text())["tag"]
    source = deployment / "bentoml" / "bentos" / tag.replace(":", "/") / "src"
    for name in ("serving/service.py", "deployment/models/2/model.safetensors", "deployment/features/store/online.db"):
        assert (source / name).stat().st_size > 0
    containerfile = (deployment / "Containerfile").read_text()
    assert "USER bentoml" in containerfile and "requirements.txt" in containerfile
    assert not list(deployment.glob(".*"))


def test_stopping_leaves_every_answer_in_the_log(live):
    """Runs last: it stops the service."""
    live.stop.close()
    with pytest.raises(httpx.HTTPError):
        httpx.get(live.url + "/healthz")
    files = sorted((live.folder / "log").glob("day=*/*.parquet"))
    logged = [row["request_id"] for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    assert set(live.answered) <= set(logged) and len(logged) == len(set(logged))
    assert "Traceback" not in (live.folder / "log" / "_server.log").read_text()
    assert all(path.name.startswith("day=") or path.name == "_server.log" for path in (live.folder / "log").iterdir())
