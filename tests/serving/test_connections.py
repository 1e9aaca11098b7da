"""Connections without a request in work end, over real sockets; those with one, and those between two, stay."""

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from serving import connections
from serving.connections import BoundedProtocol

MUCH = 16 << 20  # bytes, more than the kernel's buffers hold
WAIT = 20.0  # seconds until a test gives up; none is waited for where the law holds


async def app(scope, receive, send):
    """Reads the body and answers its length; /refuse is answered before the body is read, /slow later than a head,
    /much and a number at length."""
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5 * connections.HEAD_SECONDS)
    length, more = 0, scope["path"] != "/refuse"
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    path = scope["path"].removeprefix("/")
    size = MUCH if path == "much" else int(path) if path.isdigit() else None
    body = str(length).encode() if size is None else bytes(size)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.3)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # else the kernel chooses, each time anew
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        config = uvicorn.Config(app, http=BoundedProtocol, lifespan="off", log_config=None, timeout_keep_alive=75)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield listening.getsockname()
        running.should_exit = True
        thread.join(WAIT)


@contextmanager
def clients(address, count=1):
    made = [socket.create_connection(address, timeout=WAIT) for _ in range(count)]
    try:
        yield made
    finally:
        for client in made:
            client.close()


def rest(client):
    """What comes until the other side hangs up."""
    found = b""
    try:
        while part := client.recv(65_536):
            found += part
    except ConnectionResetError:  # it hung up while we were still sending
        pass
    return found


def test_half_heads_are_refused_while_a_good_client_is_answered(server):
    with clients(server, 50) as slow:
        for client in slow:
            client.sendall(b"POST /rank HTTP/1.1\r\nHost: x\r\n")
        assert httpx.post(f"http://127.0.0.1:{server[1]}/rank", content=b"123").text == "3"
        for client in slow:
            head, _, body = rest(client).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ") and "longer than 0.3 s" in json.loads(body)["error"]


def test_a_head_byte_by_byte_is_refused_although_something_always_comes(server):
    with clients(server) as (client,):
        client.sendall(b"GET / HTTP/1.1\r\n")
        client.settimeout(0.05)
        found = b""
        for _ in range(400):
            try:
                client.sendall(b"x")
                found += client.recv(4096)
            except TimeoutError:
                continue
            except OSError:  # it hung up
                break
            if found:
                break
        assert found.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_never_asks_is_closed_without_a_word(server):
    with clients(server) as (client,):
        assert rest(client) == b""


def test_after_an_answer_a_connection_waits_for_the_next_request_but_not_for_the_rest_of_its_head(server):
    with clients(server) as (client,):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).endswith(b"0")
        time.sleep(3 * connections.HEAD_SECONDS)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).endswith(b"0")
        client.sendall(b"\r\n")  # no head begins with it
        assert rest(client) == b""


def test_a_request_in_work_may_take_longer_than_its_head(server):
    with clients(server) as (client,):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1")
        time.sleep(3 * connections.HEAD_SECONDS)
        client.sendall(b"2")
        assert client.recv(4096).endswith(b"2")


def test_a_head_begun_beside_requests_in_work_has_its_time_from_the_last_answer(server):
    with clients(server) as (client,):
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET / HT")
        found = rest(client)
        assert found.count(b"HTTP/1.1 200 ") == 2 and found.count(b"HTTP/1.1 408 ") == 1


def test_the_rest_of_a_refused_body_is_not_waited_for(server):
    with clients(server) as (client,):
        client.sendall(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n1")
        assert client.recv(4096).endswith(b"0")
        client.sendall(b"2")
        assert rest(client) == b""


def test_who_does_not_read_an_answer_is_given_up(server):
    with clients(server) as (client,):
        client.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(3 * connections.UNREAD_SECONDS)
        assert 0 < len(rest(client)) < MUCH


def test_who_does_not_read_the_end_of_a_last_answer_is_given_up_too(server):
    """More than the kernel's buffers hold, and too little for the transport to pause its writer."""

    def read_late(path):
        with socket.socket() as client:
            client.settimeout(WAIT)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.connect(server)
            client.sendall(b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
            time.sleep(3 * connections.UNREAD_SECONDS)
            return len(rest(client))

    size = read_late(b"much") + 32_768
    assert read_late(b"%d" % size) < size


def test_who_reads_a_long_answer_is_answered_again(server, monkeypatch):
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 1.0)
    with clients(server) as (client,):
        for path in (b"much", b""):
            client.sendall(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            head, _, body = client.recv(65_536).partition(b"\r\n\r\n")
            length, read = int(head.rpartition(b" ")[2]), len(body)
            while read < length:
                read += len(client.recv(65_536))
            time.sleep(connections.UNREAD_SECONDS + 0.1)
        assert (head[:13], length, body) == (b"HTTP/1.1 200 ", 1, b"0")


def test_a_head_without_bounds_is_refused_before_it_fills_the_memory(server):
    with clients(server) as (client,):
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 6 * connections.HEAD_BYTES)  # more than one read
        assert rest(client).startswith(b"HTTP/1.1 431 ")
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    with clients(server) as (client,):
        client.sendall(head + b"x" * 100_000)  # a body is no head
        assert client.recv(4096).endswith(b"100000")


def test_a_body_that_comes_with_the_beginning_of_the_next_head_is_no_part_of_it(server, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_BYTES", 100)
    with clients(server) as (client,):
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        client.sendall(head + b"x" * 1000 + b"GET / HT")
        assert client.recv(4096).endswith(b"1000")
        client.sendall(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).endswith(b"0")
