"""The load tool: arrivals are Poisson, latency holds the queue, errors keep their names, the knee is where it is."""

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from serving.load import Load, arrivals, as_json, bodies_of, find_knee, load
from serving.load_page import page
from uniscale.errors import ServingError

HELD = Load(
    rate=10.0,
    seconds=10.0,
    sent=100,
    answered=100,
    achieved_rate=10.0,
    latency_ms={"p50": 5.0, "p90": 6.0, "p95": 7.0, "p99": 20.0, "p99.9": 30.0, "max": 31.0},
    server_p50_ms=3.0,
    errors={},
    fallbacks={},
    send_lag_p99_ms=0.1,
    curve=[(0.0, 1.0), (50.0, 5.0), (100.0, 31.0)],
    by_second=[(0, 5.0, 20.0), (1, 5.0, 31.0)],
)
SERVICE_SECONDS = 0.02


class OneAtATime(BaseHTTPRequestHandler):
    """Answers in 20 ms, one request after the other: 50 a second and no more; `bad` bodies in another way."""

    def do_GET(self):
        self.reply(200, {"users": ["u1", "u2"], "queries": [], "items": [f"i{n}" for n in range(30)], "scenarios": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("bad") == "shed":
            self.reply(429, {"error": "full"})
            return
        time.sleep(SERVICE_SECONDS)
        self.reply(200, {"latency_ms": 20.0, "fallback": body.get("bad")})

    def reply(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def url():
    server = HTTPServer(("127.0.0.1", 0), OneAtATime)
    server.request_queue_size = 256
    server.socket.listen(256)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_arrivals_are_a_poisson_process():
    """Counts have mean and variance λt, gaps of the exponential; both within four standard errors."""
    rng = np.random.default_rng(0)
    counts = np.array([len(arrivals(20.0, 2.0, rng)) for _ in range(2000)])
    assert abs(counts.mean() - 40) < 4 * np.sqrt(40 / 2000) and abs(counts.var() - 40) < 4 * 40 * np.sqrt(2 / 2000)
    times = arrivals(1000.0, 10.0, rng)
    gaps = np.diff(times)
    assert (gaps >= 0).all() and times[0] >= 0 and times[-1] < 10
    assert abs((gaps > 0.001).mean() - np.exp(-1)) < 4 * np.sqrt(0.25 / len(gaps))


def test_latency_holds_the_queue_of_a_service_that_is_too_slow(url):
    """N answers at 20 ms each take N · 20 ms, so the last one waited at least that less the second of arrivals."""
    done = load(url, [{"user_id": "u1"}], rate=100.0, seconds=1.0)
    assert done.answered == done.sent > 60 and not done.errors
    assert done.latency_ms["max"] >= 1000 * (done.sent * SERVICE_SECONDS - 1.0)
    assert done.latency_ms["max"] > 2 * done.server_p50_ms and done.achieved_rate <= 1 / SERVICE_SECONDS
    assert not done.holds(1e9)  # it did not keep up, whatever the bound on latency
    assert list(done.latency_ms.values()) == sorted(done.latency_ms.values())
    assert [second for second, *_ in done.by_second] == [0]  # by when they were sent, not by when they were answered
    assert max(slowest for *_, slowest in done.by_second) == done.latency_ms["max"]


def test_errors_and_fallbacks_are_counted_by_kind(url):
    bodies = [{"user_id": "u1"}, {"bad": "shed"}, {"bad": "deadline"}]
    done = load(url, bodies, rate=20.0, seconds=1.0)
    assert done.errors.keys() == {"429"} and done.fallbacks.keys() == {"deadline"}
    assert done.answered + sum(done.errors.values()) == done.sent


def test_nobody_there_is_said_at_once():
    with pytest.raises(ServingError, match="does not answer"):
        load("http://127.0.0.1:9", [{}], 1.0, 1.0)
    with pytest.raises(ServingError, match="examples does not answer"):
        bodies_of("http://127.0.0.1:9", 10, 1, np.random.default_rng(0))


def test_bodies_are_made_of_what_the_service_offers(url):
    bodies = bodies_of(url, 200, 8, np.random.default_rng(0))
    assert len(bodies) == 8 and all(len(set(body["item_ids"])) == 30 for body in bodies)
    assert {body["user_id"] for body in bodies} == {"u1", "u2"} and bodies[0]["query"] is None


@pytest.mark.parametrize(
    ("capacity", "knee", "rates"),
    [
        (50.0, 50.0, [10, 20, 40, 80, 60, 50, 55]),
        (35.0, 35.0, [10, 20, 40, 30, 35, 37.5]),
        (5.0, None, [10]),
    ],
)
def test_the_knee_by_hand(capacity, knee, rates):
    """Doubling until it breaks, then three halvings."""
    run = lambda rate: replace(HELD, rate=rate, errors={} if rate <= capacity else {"429": 1})  # noqa: E731
    found, tried = find_knee(run, 10.0, 100.0)
    assert found == knee and [one.rate for one in tried] == rates


def test_what_holds():
    assert HELD.holds(20.0) and not HELD.holds(19.9)
    for broken in (
        {"errors": {"429": 1}},
        {"fallbacks": {"deadline": 1}},
        {"achieved_rate": 8.9},
        {"latency_ms": None},
    ):
        assert not replace(HELD, **broken).holds(20.0)


def test_the_report_is_json_and_a_page_that_fetches_nothing():
    loads = [HELD, replace(HELD, rate=20.0, stolen=0.25, errors={"429": 3, "<b>": 1})]
    text = page(loads, 10.0, 100.0, 200)
    assert (
        "10 requests a second" in text
        and "3 × 429" in text
        and "<td>25.0%</td>" in text
        and "<b>" not in text
        and text.count("<svg") == 4
    )
    assert not any(mark in text for mark in ("http://", "https://", "src=", "href=", "<script"))
    report = json.loads(json.dumps(as_json(loads, 10.0, 100.0, 200), allow_nan=False))
    assert report["knee"] == {"rate": 10.0, "p99_ms": 100.0} and report["loads"][0]["latency_ms"]["p99.9"] == 30.0
    assert "not found" in page([replace(HELD, latency_ms=None, curve=[], by_second=[])], None, 100.0, 200)
