"""The HTTP ranker against a real server of the test's own: the call, the key, the retries, the errors."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from simulation.client import HttpRanker, http_ranker
from uniscale.errors import ServingError


@pytest.fixture
def service():
    """A server that answers `service.script` (status, headers, body), one after the other, then an echo."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.calls.append((self.path, self.headers.get("Authorization"), self.client_address, json.loads(body)))
            echo = (200, {}, json.dumps({"variant": "a", "items": [], "got": json.loads(body)}).encode())
            status, headers, answer = server.script.pop(0) if server.script else echo
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.calls, server.script = [], []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_posts_to_rank_with_the_key_over_one_connection(service):
    with http_ranker(service.url + "/", api_key="secret") as rank:
        assert rank({"request_id": "r1"})["got"] == {"request_id": "r1"}
        rank({"request_id": "r2"})
    assert [call[:2] for call in service.calls] == [("/rank", "Bearer secret")] * 2
    assert service.calls[0][2] == service.calls[1][2]


def test_no_key_no_header(service):
    with http_ranker(service.url) as rank:
        rank({})
    assert service.calls[0][1] is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again(service, status):
    service.script = [(status, {"Retry-After": "0"}, b"")] * 2
    with http_ranker(service.url) as rank:
        assert rank({})["variant"] == "a"
    assert len(service.calls) == 3


def test_retries_are_bounded(service):
    service.script = [(503, {"Retry-After": "0"}, b"")] * 9
    with HttpRanker(service.url, attempts=3) as rank, pytest.raises(ServingError, match=r"3 attempts.*status 503"):
        rank({})
    assert len(service.calls) == 3


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b"user_id missing", "answered 400: user_id missing"),
        (200, b"hello", "no JSON object"),
        (200, b"[]", "no JSON"),
    ],
)
def test_refusals_are_not_repeated_and_say_why(service, status, body, message):
    service.script = [(status, {}, body)]
    with http_ranker(service.url) as rank, pytest.raises(ServingError, match=message):
        rank({})
    assert len(service.calls) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nowhere"])
def test_nobody_there_is_said_at_once(url):
    with http_ranker(url) as rank, pytest.raises(ServingError, match="no service at"):
        rank({})
