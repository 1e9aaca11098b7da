"""Failure drills on the real service: what breaks is flagged, what is left answers, and it recovers by itself."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from http.client import HTTPConnection

import httpx
import psutil
import pyarrow as pa
import pytest

from tests.features.redis_server import needs_redis, redis_server
from tests.serving.live import ASKED, JSON, build, serve
from uniscale.logs import TIMESTAMP

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]
PATIENCE_SECONDS = 240.0  # a worker imports torch and Feast before it answers


@pytest.fixture(scope="module")
def live(packaged, tmp_path_factory):
    with serve(packaged, tmp_path_factory.mktemp("drills"), "serving.workers=2") as running:
        yield running


def store(live):
    from serving.process import store_of

    return store_of(live.log) / "store" / "online.db"


@contextmanager
def without_tables(live):
    """Every table of the online store is gone while the block runs."""
    with closing(sqlite3.connect(store(live))) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            connection.execute(f'ALTER TABLE "{name}" RENAME TO "gone_{name}"')
        connection.commit()
        try:
            yield
        finally:
            for name in names:
                connection.execute(f'ALTER TABLE "gone_{name}" RENAME TO "{name}"')
            connection.commit()


def eventually(holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE_SECONDS:g} s")


@contextmanager
def killed(server):
    """The server is gone while the block runs."""
    server.kill()
    try:
        yield
    finally:
        server.start()


def test_without_the_feature_store_answers_are_popular_and_say_so_until_it_is_back(live):
    degrades_and_recovers(live, without_tables(live))


@needs_redis
def test_without_redis_answers_are_popular_and_say_so_until_it_is_back(tmp_path):
    """One worker: a push must be seen by the next request, wherever it lands."""
    from features.store.online import push_behaviours
    from serving.process import store_of

    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as server:
        packaged = build(tmp_path, "features.online_store=redis", f"features.redis_url={server.url}")
        with serve(packaged, tmp_path / "served", "serving.workers=1") as live:
            degrades_and_recovers(live, killed(server))
            before = live.rank()["items"]
            at = pa.array([ASKED - timedelta(minutes=minute) for minute in range(8)], TIMESTAMP)
            clicks = {"user_id": ["u3"] * 8, "item_id": [f"i{item}" for item in range(8)], "type": ["click"] * 8}
            push_behaviours(store_of(live.log), pa.table({**clicks, "ts": at}))
            assert live.rank()["items"] != before
            assert not (store_of(live.log) / "store" / "online.db").exists()


def degrades_and_recovers(live, lost):
    good = live.rank()
    assert good["fallback"] is None
    with lost:
        degraded = live.rank()
        assert degraded["fallback"] == "features" and all(item["score"] is None for item in degraded["items"])
        assert sorted(item["item_id"] for item in degraded["items"]) == sorted(i["item_id"] for i in good["items"])
        assert live.http.get("/readyz").status_code == 503 and live.http.get("/healthz").status_code == 200
        assert 'fallback="features"' in live.http.get("/metrics").text
    assert live.rank()["items"] == good["items"] and live.http.get("/readyz").status_code == 200


def test_an_idle_connection_is_kept_for_the_next_request(live):
    """Longer than the 5 s of BentoML, which a client that keeps it as long loses a request to now and then."""
    with closing(HTTPConnection(live.url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", "/healthz")
        first = json.loads(connection.getresponse().read())
        socket = connection.sock
        time.sleep(6.5)
        connection.request("GET", "/healthz")
        assert json.loads(connection.getresponse().read())["pid"] == first["pid"] and connection.sock is socket


def test_more_than_it_can_do_is_shed_and_what_was_accepted_is_answered(live):
    """The store hangs (its database is locked), so slots fill: the rest is told to come back, at once."""
    body = '{"user_id": "u1", "item_ids": ["i1", "i2"]}'

    def one(_):
        with httpx.Client(base_url=live.url, timeout=60) as http:
            return http.post("/rank", content=body, headers=JSON)

    with closing(sqlite3.connect(store(live))) as connection, ThreadPoolExecutor(80) as threads:
        connection.execute("BEGIN EXCLUSIVE")
        pending = threads.map(one, range(80))
        eventually(lambda: 'uniscale_refusals_total{status="429"}' in live.http.get("/metrics").text)
        connection.rollback()
        answers = list(pending)
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status_code == 429)
    eventually(lambda: live.rank()["fallback"] is None)


def test_a_killed_worker_comes_back_while_the_other_answers(live):
    def pids():
        found = set()
        for _ in range(40):  # each connection goes to whichever worker takes it
            found.add(httpx.get(f"{live.url}/healthz").json()["pid"])
        return found

    before = eventually(lambda: found if len(found := pids()) == 2 else None)
    killed = before.pop()
    os.kill(killed, signal.SIGKILL)
    lost = 0
    answered = 0

    def ask():
        nonlocal lost, answered
        try:
            with httpx.Client(base_url=live.url, timeout=30) as http:
                answered += http.post("/rank", content='{"user_id": "u1", "item_ids": ["i1"]}', headers=JSON).is_success
                return http.get("/healthz").json()["pid"]
        except httpx.TransportError:  # what the killed worker had accepted is lost with it
            lost += 1

    assert eventually(lambda: pid if (pid := ask()) not in {*before, killed, None} else None)
    assert answered > 0 and lost <= 3, (answered, lost)


def test_a_service_ended_before_it_is_ready_leaves_no_process_behind(live, tmp_path):
    """By then its supervisor has started a worker; one that cannot load it would start again and again."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "uniscale.cli", "serve", "--deployment", live.folder / "deployment", "--log", log]
    serving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = psutil.Process(serving.pid).children
    started = eventually(lambda: found if len(found := children(recursive=True)) > 1 else None)
    serving.terminate()
    assert serving.wait(60) != 0
    assert psutil.wait_procs(started, timeout=30)[1] == [] and not (log / "_bentoml").exists()
