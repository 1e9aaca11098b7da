"""Whatever is sent, the service refuses it with a reason or answers it, never fails, and goes on answering others.

Requests are drawn from the OpenAPI document's own fields: each holds what it should, or any JSON at all.
"""

import json
import select
import socket

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.serving.live import JSON, serve

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TEXT = st.text(max_size=300)
GOOD = {
    "request_id": st.none() | TEXT,
    "user_id": TEXT,
    "query": st.none() | TEXT,
    "scenario": st.lists(TEXT, max_size=4),
    "context": st.dictionaries(TEXT, st.text(max_size=5) | st.floats() | st.integers() | st.booleans(), max_size=4),
    "item_ids": st.lists(st.sampled_from(["i1", "i2", "i3", "new", "", "é"]), max_size=8),
    "top_k": st.none() | st.integers(),
    "ts": st.none() | st.datetimes(timezones=st.timezones()).map(lambda ts: ts.isoformat()),
}
REQUEST = st.fixed_dictionaries(
    {name: good | ANY if name == "user_id" else good for name, good in GOOD.items() if name in ("user_id", "item_ids")},
    optional={name: good | ANY for name, good in GOOD.items() if name not in ("user_id", "item_ids")} | {"boost": ANY},
)
BATCH = st.fixed_dictionaries({"requests": st.lists(REQUEST | ANY, max_size=3)})
SHARES = st.fixed_dictionaries({"weights": st.dictionaries(st.sampled_from(["champion", "candidate", ""]), ANY) | ANY})
CONTENT = st.binary(max_size=60) | ANY.map(json.dumps)
CALLS = st.one_of(
    st.tuples(st.just("POST"), st.just("/rank"), REQUEST.map(json.dumps) | CONTENT),
    st.tuples(st.just("POST"), st.just("/rank_batch"), BATCH.map(json.dumps) | CONTENT),
    st.tuples(st.just("PUT"), st.just("/experiment"), SHARES.map(json.dumps) | CONTENT),
    st.tuples(st.sampled_from(["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]), st.just("/rank"), CONTENT),
)


@pytest.fixture(scope="module")
def live(packaged, tmp_path_factory):
    with serve(packaged, tmp_path_factory.mktemp("fuzz")) as running:
        yield running


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(call=CALLS)
@example(call=("POST", "/rank", '{"user_id": "\\ud800", "item_ids": ["i1"]}'))
@example(call=("POST", "/rank_batch", '{"requests": [' + "[" * 3000 + "]}"))
def test_no_request_is_an_error_of_the_server(live, call):
    method, path, content = call
    content = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    answer = live.http.request(method, path, content=content, headers=JSON)
    assert answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code != 200 and method in ("POST", "PUT") and path != "/rank":
        assert answer.json()["error"]
    if answer.status_code == 200 and path == "/rank":
        assert {item["item_id"] for item in answer.json()["items"]} <= set(json.loads(content)["item_ids"])


HEAD = b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"


@pytest.mark.parametrize(
    ("begun", "each_second"),
    [(HEAD, b""), (HEAD + b"X: ", b"x"), (HEAD + b"\r\n{", b""), (HEAD + b"\r\n{", b" ")],
    ids=["half a head", "a head byte by byte", "half a body", "a body byte by byte"],
)
def test_clients_that_send_slowly_do_not_keep_others_waiting_and_are_given_up(live, begun, each_second):
    host, port = live.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=60) for _ in range(50)]
    try:
        for client in slow:
            client.sendall(begun)
        answered: list[socket.socket] = []
        while not answered and each_second:
            assert live.rank()["fallback"] is None
            answered, _, _ = select.select(slow, [], [], 1.0)
            for client in slow if not answered else ():
                client.sendall(each_second)
        assert live.rank()["fallback"] is None
        for client in slow:
            assert b" 408 " in client.recv(4096).partition(b"\r\n")[0]
    finally:
        for client in slow:
            client.close()
    assert live.rank()["fallback"] is None
