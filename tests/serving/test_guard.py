"""The guard lets good requests through whole and answers everything else itself, with a status and a reason."""

import asyncio
import base64
import json

import pytest

from serving import guard
from serving.guard import Guard

LOCAL, REMOTE = ("127.0.0.1", 5000), ("192.0.2.7", 5000)
JSON = (b"content-type", b"application/json; charset=utf-8")


class Service:
    """A service that is probed and counts refusals."""

    def __init__(self, api_key=None, max_body_bytes=100, ready=True):
        self.api_key, self.max_body_bytes, self.ready, self.refusals = api_key, max_body_bytes, ready, []
        self.busy = False

    def health(self):
        return {"status": "ok"}

    async def readiness(self):
        return self.ready, {"status": "ready" if self.ready else "not ready"}

    def exposition(self):
        return b"uniscale_answers_total 1.0\n"

    def openapi(self):
        return {"openapi": "3.1.0"}

    def examples(self):
        return {"users": ["u1"]}

    def full(self):
        return self.busy

    def refused(self, status):
        self.refusals.append(status)


def call(service, method="POST", path="/rank", headers=(JSON,), parts=(b"{}",), client=LOCAL, delay=0.0):
    """Status, answer headers, answer body, and the body the application behind saw (None if it was not asked)."""
    sent, seen = [], []
    pending = [
        {"type": "http.request", "body": part, "more_body": place < len(parts) - 1} for place, part in enumerate(parts)
    ]

    async def receive():
        if not pending:
            return {"type": "http.disconnect"}
        await asyncio.sleep(delay)
        return pending.pop(0)

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        seen.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "client": client}
    asyncio.run(Guard(app, lambda: service)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], seen[0] if seen else None


def test_a_good_request_arrives_whole():
    assert call(Service(), parts=(b'{"a"', b":1}"))[3] == b'{"a":1}'


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        (b"Bearer wrong", 401),
        (b"Bearer secret ", 401),
        (b"secret", 401),
        (b"Bearer \xff", 401),
        (b"Basic " + base64.b64encode(b"anyone:wrong"), 401),
        (b"Basic secret", 401),
        (b"Basic " + base64.b64encode(b"secret"), 401),  # a user name is no password
        (b"Bearer secret", 200),
        (b"Basic " + base64.b64encode(b"anyone:secret"), 200),
    ],
)
def test_a_key_is_asked_for_when_one_is_set(given, status):
    service = Service(api_key="secret")
    headers = (JSON, *([(b"authorization", given)] if given is not None else []))
    answered, _, body, seen = call(service, headers=headers)
    assert answered == status and (seen is None) == (status != 200)
    assert service.refusals == ([401] if status == 401 else [])
    assert status == 200 or "Bearer" in json.loads(body)["error"]


@pytest.mark.parametrize("client", [REMOTE, None, ("not an address", 1)])
def test_without_a_key_only_this_machine_is_answered(client):
    status, _, body, seen = call(Service(), client=client)
    assert status == 403 and seen is None and "UNISCALE_API_KEY" in json.loads(body)["error"]
    assert call(Service(), client=("::1", 5000))[0] == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_key(path):
    assert call(Service(api_key="secret"), "GET", path, headers=(), client=REMOTE)[0] == 200
    assert call(Service(api_key="secret"), "GET", "/metrics", headers=(), client=REMOTE)[0] == 401


def test_pages():
    assert json.loads(call(Service(), "GET", "/healthz")[2]) == {"status": "ok"}
    assert call(Service(ready=False), "GET", "/readyz")[0] == 503
    status, headers, body, _ = call(Service(), "GET", "/metrics")
    assert status == 200 and headers[b"content-type"].startswith(b"text/plain") and b"uniscale" in body


@pytest.mark.parametrize("path", ["/", "/examples", "/docs.json"])
def test_pages_for_people_are_behind_the_key_and_only_read(path):
    service = Service(api_key="secret")
    status, headers, _, seen = call(service, "GET", path, headers=(), client=REMOTE)
    assert status == 401 and seen is None and (headers.get(b"www-authenticate") == b"Basic") == (path == "/")
    typed = (b"authorization", b"Basic " + base64.b64encode(b":secret"))
    assert call(service, "GET", path, headers=(typed,), client=REMOTE)[0] == 200
    status, headers, _, seen = call(service, "POST", path, headers=(typed, JSON))
    assert status == 405 and headers[b"allow"] == b"GET, HEAD" and seen is None
    assert call(Service(), "GET", path, client=REMOTE)[0] == 403


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE"])
def test_shares_are_put_and_nothing_else(method):
    status, headers, _, seen = call(Service(), method, "/experiment")
    assert status == 405 and headers[b"allow"] == b"PUT" and seen is None


def test_a_body_over_the_limit_is_refused_however_it_is_cut():
    service = Service(max_body_bytes=10)
    assert call(service, parts=(b"x" * 10,))[0] == 200
    assert call(service, parts=(b"x" * 11,))[0] == 413
    status, _, body, seen = call(service, parts=(b"x" * 6,) * 50)
    assert status == 413 and seen is None and "10 bytes" in json.loads(body)["error"]
    assert service.refusals == [413, 413]


@pytest.mark.parametrize(
    "kind", [b"text/plain", b"multipart/form-data; boundary=x", b"", b"application/vnd.bentoml+pickle"]
)
def test_only_json_gets_in(kind):
    status, _, body, seen = call(Service(), headers=((b"content-type", kind),))
    assert status == 415 and seen is None and "application/json" in json.loads(body)["error"]


def test_of_two_content_types_the_first_counts_as_it_does_for_bentoml():
    form = (b"content-type", b"multipart/form-data; boundary=x")
    assert call(Service(), headers=(form, JSON))[0] == 415
    assert call(Service(), headers=(JSON, form))[0] == 200


def test_a_full_service_sheds_before_it_reads_a_body():
    service = Service()
    service.busy = True
    status, headers, body, seen = call(service, parts=(b"{", b"no JSON"))
    assert status == 429 and headers[b"retry-after"] == b"1" and seen is None and json.loads(body)["error"]
    assert call(service, "GET", "/healthz")[0] == 200 and service.refusals == [429]


def test_a_body_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.01)
    service = Service()
    assert call(service, parts=(b"{", b"}"), delay=0.05)[0] == 408 and service.refusals == [408]


@pytest.mark.parametrize(("kind", "busy", "status"), [(b"text/plain", False, 415), (b"application/json", True, 429)])
def test_the_body_of_a_refused_request_is_not_waited_for_without_end(monkeypatch, kind, busy, status):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.01)
    service = Service()
    service.busy = busy
    assert call(service, headers=((b"content-type", kind),), delay=3600.0)[0] == status


def test_before_start_and_during_stop_clients_are_told_to_come_back():
    status, headers, _, seen = call(None)
    assert status == 503 and headers[b"retry-after"] == b"1" and seen is None
