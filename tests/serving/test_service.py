"""The packaged service as a real BentoML process: answers, refusals, parity with the offline models, a clean stop.

The deployment of `tests.serving.live` is started once for the whole module.
"""

import json
import re
import shutil
import subprocess
import time
from datetime import timedelta

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.serving.live import ASKED, JSON, serve
from uniscale.artifacts import read_json
from uniscale.assignment import assign
from uniscale.logs import TIMESTAMP

pytestmark = pytest.mark.xdist_group("service")


@pytest.fixture(scope="module")
def live(packaged, tmp_path_factory):
    with serve(packaged, tmp_path_factory.mktemp("service")) as running:
        yield running


def test_a_request_is_answered_by_its_users_variant(live):
    for number in range(20):
        answer = live.rank(user_id=f"u{number}")
        assert answer["variant"] == assign(f"u{number}", live.config.experiment.salt, live.config.experiment.weights)
        assert answer["version"] == {"champion": "1", "candidate": "2"}[answer["variant"]]
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True) and len(scores) == 12
        assert answer["fallback"] is None and answer["unknown_items"] == []


def test_served_scores_are_those_of_the_exported_models_offline(live):
    """Batches made offline from point-in-time features of the same instant score as over HTTP, to the bit.

    On the device and in the precision that the service chose: with matrix instructions that need not be float32.
    """
    import torch

    from features.on_demand import user_moments
    from features.store.retrieval import item_day_features, query_day_features, request_features
    from features.text import TextEncoder
    from models.checkpoint import load_model
    from models.rows import ItemVectors
    from serving.engine import Ask, Engine
    from serving.inputs import UserInputs
    from serving.items import Catalogue
    from serving.served_model import ServedModel
    from uniscale.samples import SampleSpec

    features, deployment = live.folder / "features", live.folder / "deployment"
    spec = SampleSpec.load(features)
    models = {}
    for version, chosen in live.http.get("/healthz").json()["compute"].items():
        exported = load_model(deployment / "models" / version).search_export()
        models[version] = ServedModel(exported, torch.device(chosen["device"]))
        models[version].precision = getattr(torch, chosen["precision"])
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
        now = user_moments([raw["behaviour_ts"]], np.array([ASKED.timestamp()]))  # later than the store's instant
        raw |= {name: float(value[0]) for name, value in now.items()}
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
        assert worst == 0.0, f"user {user}, query {query}"


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
    push_behaviours(store_of(live.log), events)
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
    "multipart that is JSON too": (
        b"--x",
        [("Content-Type", "multipart/form-data; boundary=y"), ("Content-Type", "application/json")],
        415,
    ),
    "a pickle": (b"\x80\x04N.", {"Content-Type": "application/vnd.bentoml+pickle"}, 415),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_reason_and_does_no_harm(live, name):
    body, headers, status = BAD[name]
    answer = live.post(body, headers)
    assert answer.status_code == status and answer.json()["error"]
    assert "IODescriptor" not in answer.json()["error"]
    assert live.rank()["fallback"] is None


def test_a_refusal_names_what_is_wrong_and_is_counted(live):
    def counted():
        found = re.search(r'refusals_total{status="400"} (\S+)', live.http.get("/metrics").text)
        return float(found[1]) if found else 0.0

    before = counted()
    assert live.post({**GOOD, "user_id": 7}).json()["error"] == "user_id: Input should be a valid string"
    assert "and 1 more" in live.post({}).json()["error"]
    assert live.post(b"{").json()["error"].startswith("the body: Invalid JSON")
    batch = live.post({"requests": [GOOD, {**GOOD, "item_ids": []}]}, path="/rank_batch").json()["error"]
    assert batch.startswith("requests.1.item_ids: ")
    assert counted() == before + 4


def test_unknown_paths_and_methods_are_not_errors_of_the_server(live):
    assert live.http.get("/nothing").status_code == 404
    assert live.http.get("/rank").status_code == 405
    assert live.http.post("/nothing", content="{}", headers=JSON).status_code == 404


def test_pages(live):
    assert live.post(b" " * 300_000).status_code == 413 and live.http.get("/nothing").status_code == 404
    health = live.http.get("/healthz").json()
    assert health["versions"] == {"champion": "1", "candidate": "2"} and health["items"] == 30
    assert live.http.get("/readyz").json() == {"status": "ready"}
    metrics = live.http.get("/metrics").text
    assert 'uniscale_refusals_total{status="413"}' in metrics
    assert "/nothing" not in metrics


def test_smoke_passes(live):
    from serving.smoke import smoke

    report = smoke(live.config, live.url, live.folder / "deployment", live.log.with_name("smoke"))
    assert report["passed"], {name: passed for name, passed in report["checks"].items() if not passed}
    assert report["requests"] == 10 and report["candidates"] == 20 and 0 < report["p50_ms"] <= report["p99_ms"]
    assert json.loads((live.log.with_name("smoke") / "smoke.json").read_text()) == report


def test_the_bento_is_whole_and_says_how_to_build_its_image(live):
    deployment = live.folder / "deployment"
    tag = json.loads((deployment / "deployment.json").read_text())["tag"]
    source = deployment / "bentoml" / "bentos" / tag.replace(":", "/") / "src"
    for name in ("serving/service.py", "deployment/models/2/model.safetensors", "deployment/features/store/online.db"):
        assert (source / name).stat().st_size > 0
    containerfile = (deployment / "Containerfile").read_text()
    assert "USER bentoml" in containerfile and "requirements.txt" in containerfile
    assert not list(deployment.glob(".*"))


def test_a_batch_over_http(live):
    asked = {"user_id": "u1", "item_ids": ["i1", "i2"], "ts": ASKED.isoformat()}
    many = {**asked, "item_ids": [f"i{item}" for item in range(2001)]}
    answer = live.post({"requests": [asked, many]}, path="/rank_batch")
    assert answer.status_code == 200
    good, bad = answer.json()["answers"]
    live.answered.append(good["answer"]["request_id"])
    assert good["answer"]["items"] == live.rank(user_id="u1", query=None, item_ids=["i1", "i2"])["items"]
    assert bad["status"] == 400 and "2001 candidates" in bad["error"]
    for body in ({"requests": []}, {"requests": [asked] * 33}, {"requests": [{}]}, [], {}):
        assert live.post(body, path="/rank_batch").status_code == 400


def test_the_document_describes_what_is_answered(live):
    document = live.http.get("/docs.json").json()
    schemas = document["components"]["schemas"]
    for path, operation in document["paths"].items():
        for method, described in operation.items():
            if method in ("post", "put"):
                assert described["requestBody"]["required"] is True
                content = described["requestBody"]["content"]["application/json"]
                answer = live.http.request(method, path, json=content["example"])
                shape = described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
                assert answer.json().keys() == schemas[shape.rpartition("/")[2]]["properties"].keys()
                refused = live.http.request(method, path, json={})
                assert refused.status_code == 400 and set(refused.json()) >= {"error"}
            else:
                answer = live.http.get(path)
            assert str(answer.status_code) in described["responses"]
    assert schemas["RankRequest"]["properties"]["item_ids"]["maxItems"] == 2000


def test_the_page_is_whole_and_what_it_asks_is_answered(live):
    page = live.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert re.findall(r"(?:src|href)=|https?://|@import|url\(", page.text) == []
    assert 'name="viewport"' in page.text and "color-scheme: light dark" in page.text
    assert set(re.findall(r'call\("(\w+)"', page.text)) == {"examples", "rank"}
    examples = live.http.get("/examples").json()
    asked = {"user_id": examples["users"][0], "query": examples["queries"][0], "scenario": examples["scenarios"][:1]}
    answer = live.rank(**asked, item_ids=examples["items"][:50], top_k=20)
    assert set(re.findall(r"answer\.(\w+)", page.text)) - {"json", "ok", "status"} <= answer.keys()
    assert answer["unknown_items"] == [] and answer["fallback"] is None


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_browser_shows_results(live, tmp_path):
    """The page's own script runs: it asks, and fills its table."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--window-size=400,800", "--virtual-time-budget=20000", "--dump-dom", f"{live.url}/"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert dom.count("<td") == 4 * 20 and "variant " in dom and " ms in the service" in dom, dom[-2000:]
    assert re.search(r'<p id="error" role="alert"></p>', dom)


def test_a_version_takes_over_over_http_and_a_corrupt_one_does_not(live, tmp_path):
    """Requests go on all the time: none fails, and health and metrics say what became of the change."""
    from serving.deployment import Deployment
    from serving.export import export
    from serving.process import routing_of
    from serving.routing import Routing, Target, Variant

    def health(holds):
        for _ in range(300):
            state = live.http.get("/healthz").json()
            if holds(state):
                return state
            live.rank()
            time.sleep(0.02)
        raise AssertionError(state)

    def changes(outcome):
        found = re.search(rf'routing_changes_total{{outcome="{outcome}"}} (\S+)', live.http.get("/metrics").text)
        return float(found[1]) if found else 0.0

    accepted, refused = changes("accepted"), changes("refused")
    own = Routing.of(Deployment.load(live.folder / "deployment"))
    export(live.folder / "candidate", tmp_path / "next")
    new = Routing(variants={"all": Variant(target=Target.of("next", tmp_path / "next"), weight=1.0)})
    new.save(routing_of(live.log))
    state = health(lambda state: state["versions"] == {"all": "next"})
    assert state["routing"]["previous"] == own.versions and live.rank()["version"] == "next"
    (tmp_path / "bad").mkdir()
    bad = Routing(variants={"all": Variant(target=Target(version="bad", folder=str(tmp_path / "bad")), weight=1.0)})
    bad.save(routing_of(live.log))
    state = health(lambda state: state["routing"]["refused"])
    assert "model.json" in state["routing"]["refused"] and live.rank()["version"] == "next"
    own.save(routing_of(live.log))
    state = health(lambda state: state["versions"] == own.versions)
    assert state["routing"]["refused"] is None
    assert (changes("accepted"), changes("refused")) == (accepted + 2, refused + 1)


def test_an_experiment_moves_the_shares_of_the_live_service(live):
    """By the very client that ramps and rolls back."""
    from monitoring.rollback import HttpTraffic
    from uniscale.errors import ServingError

    def variants(users):
        asked = [live.http.post("/rank", json={"user_id": f"u{n}", "item_ids": ["i1"]}).json() for n in range(users)]
        return {answer["variant"] for answer in asked}

    traffic, before = HttpTraffic(live.url), live.http.get("/healthz").json()["weights"]
    assert variants(30) == set(before) == {"champion", "candidate"}
    traffic.set_weights(None, {"candidate": 0.0, "champion": 1.0}, "split")
    assert variants(30) == {"champion"}
    with pytest.raises(ServingError, match="users are assigned by the salt"):
        traffic.set_weights("another", before, "split")
    with pytest.raises(ServingError, match="the variants are"):
        traffic.set_weights(None, {"champion": 1.0}, "split")
    with pytest.raises(ServingError, match=r"sum to 0\.9"):
        traffic.set_weights(None, {"champion": 0.5, "candidate": 0.4}, "split")
    assert live.http.put("/experiment", json={"weights": "half"}).status_code == 400
    assert live.http.get("/healthz").json()["weights"] == {"champion": 1.0, "candidate": 0.0}
    traffic.set_weights(None, before, "split")
    assert variants(30) == set(before)


def test_an_experiment_that_asks_for_it_gets_interleaved_lists_and_its_log_says_whom_users_prefer(live, tmp_path):
    """What each variant alone would answer is known, so lists, teams and credits are made again here, by hand."""
    from monitoring.interleaving import analyse_interleaving
    from tests.monitoring.ab_logs import DESCRIPTION
    from uniscale.interleaving import team_draft

    def experiment(weights, mode):
        answer = live.http.put("/experiment", json={"weights": weights, "mode": mode})
        assert answer.status_code == 200 and answer.json() == {
            "salt": live.config.experiment.salt,
            "weights": weights,
            "mode": mode,
        }

    before, users = live.http.get("/healthz").json()["weights"], [f"u{number}" for number in range(30)]
    orders = {}
    for name in ("champion", "candidate"):
        experiment({each: float(each == name) for each in ("champion", "candidate")}, "split")
        orders[name] = [[item["item_id"] for item in live.rank(user_id=user)["items"]] for user in users]
    experiment(before, "interleave")
    assert live.http.get("/healthz").json()["mode"] == "interleave"
    credits, events = {"champion": 0, "candidate": 0}, []
    for number in range(120):
        place = number % len(users)
        answer = live.rank(user_id=users[place], request_id=f"both-{number}", top_k=4)
        control, treatment = (orders[name][place] for name in ("champion", "candidate"))
        salt = live.config.experiment.salt
        items, teams = team_draft(control, treatment, 4, salt, answer["request_id"])
        assert (answer["variant"], answer["version"]) == ("interleaved", "1+2")
        assert [item["item_id"] for item in answer["items"]] == items
        clicked = min(items, key=treatment.index)  # users who agree with the treatment
        credits["candidate" if teams[items.index(clicked)] else "champion"] += 1
        events.append({"request_id": answer["request_id"], "item_id": clicked, "type": "click"})
    experiment(before, "split")
    assert live.rank()["variant"] in before
    logs = tmp_path / "logs"
    (logs / "events" / "day=2026-01-19").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(events), logs / "events" / "day=2026-01-19" / "part-0.parquet")
    DESCRIPTION.save(logs)
    time.sleep(2 * live.config.serving.log_flush_seconds)
    found = analyse_interleaving(live.log, logs, "candidate")
    assert found["credits"] == [credits["champion"], credits["candidate"]] and sum(found["credits"]) == 120
    assert credits["candidate"] > credits["champion"] and "candidate is preferred" in found["statement"]


def test_stopping_leaves_every_answer_in_the_log(packaged, tmp_path):
    with serve(packaged, tmp_path) as live:
        for user in range(20):
            live.rank(user_id=f"u{user}")
    with pytest.raises(httpx.HTTPError):
        httpx.get(live.url + "/healthz")
    files = sorted((live.log).glob("day=*/*.parquet"))
    logged = [row["request_id"] for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    assert sorted(live.answered) == sorted(logged)
    assert "Traceback" not in (live.log / "_server.log").read_text()
    assert {path.name.partition("=")[0] for path in live.log.iterdir()} == {"day", "_inputs", "_server.log"}
