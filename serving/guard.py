"""The ASGI middleware at the door: who may ask, how large a body may be, and the pages for people and probes.

BentoML brings no API key, no body limit and no check of the content type, and labels its own request metrics with
the raw path, which anyone can make unbounded; so all four are here.
"""

import asyncio
import base64
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from serving.schemas import error_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PAGE = Path(__file__).with_name("page.html")
PAGE_HEADERS = (  # the page holds its style and script, asks this service only, and is framed by nobody
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        b"frame-ancestors 'none'",
    ),
)
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})  # probes carry no key
PAGES = OPEN_PATHS | {"/", "/metrics", "/examples", "/docs.json"}
RETRY = ((b"retry-after", b"1"),)
DRAIN_BYTES = 8 << 20  # read and forgotten of a refused body, so that an honest client gets to read the answer
BODY_SECONDS = 5.0  # a body that takes longer to arrive is refused, or not waited for where it was refused before


class Probed(Protocol):
    """What the guard asks of the service behind it."""

    max_body_bytes: int
    api_key: str | None

    def health(self) -> dict[str, Any]:
        """What is loaded, for people and for the liveness probe."""

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether traffic may come, and why not."""

    def exposition(self) -> bytes:
        """Prometheus' text format."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""

    def examples(self) -> dict[str, Any]:
        """What the search page offers."""

    async def experiment(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Change the variants' shares of the users; status and JSON body of the answer."""

    def full(self) -> bool:
        """Whether another request would be refused."""

    def refused(self, status: int) -> None:
        """Count a refusal."""


class Guard:
    """ASGI middleware; `service` gives the live service instance, None before it is there."""

    def __init__(self, app: App, service: Callable[[], Probed | None]):
        self.app = app
        self.service = service

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a probe, refuse with a reason, or pass the request on with its whole body at hand."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        service, path, method = self.service(), scope["path"], scope["method"]
        if service is None:
            await answer(send, 503, error_body("the service is starting or stopping: try again"), RETRY)
            return
        headers = dict(reversed(scope["headers"]))  # of a header given twice the first, as BentoML reads it
        if path not in OPEN_PATHS and (refusal := _authorise(headers, scope.get("client"), service.api_key)):
            service.refused(refusal[0])
            # Asked for the page, a browser then lets its user type the key as a password.
            challenge = ((b"www-authenticate", b"Basic"),) if path == "/" and refusal[0] == 401 else ()
            await answer(send, refusal[0], error_body(refusal[1]), challenge)
        elif path in PAGES:
            if method in ("GET", "HEAD"):
                await self._page(service, path, send)
            else:
                service.refused(405)
                await answer(send, 405, error_body(f"{path} is read with GET"), ((b"allow", b"GET, HEAD"),))
        elif path == "/experiment" and method != "PUT":
            service.refused(405)
            await answer(send, 405, error_body(f"{path} is changed with PUT"), ((b"allow", b"PUT"),))
        elif method == "POST":
            await self._post(service, headers, scope, receive, send)
        elif path == "/experiment":
            body = await self._body(service, headers, receive, send)
            if body is not None:
                status, detail = await service.experiment(body)
                await answer(send, status, detail)
        else:
            await self.app(scope, receive, send)

    async def _page(self, service: Probed, path: str, send: Send) -> None:
        if path == "/readyz":
            ready, detail = await service.readiness()
            await answer(send, 200 if ready else 503, detail)
        elif path == "/metrics":
            await _respond(send, 200, service.exposition(), b"text/plain; version=0.0.4; charset=utf-8")
        elif path == "/":
            await _respond(send, 200, PAGE.read_bytes(), b"text/html; charset=utf-8", PAGE_HEADERS)
        elif path == "/examples":
            await answer(send, 200, service.examples())
        elif path == "/docs.json":
            await answer(send, 200, service.openapi())
        else:
            await answer(send, 200, service.health())

    async def _post(
        self, service: Probed, headers: dict[bytes, bytes], scope: Message, receive: Receive, send: Send
    ) -> None:
        if service.full():  # before the body is parsed: shedding must cost less than answering
            await _drain(receive)
            service.refused(429)
            await answer(send, 429, error_body("as many requests are in work as are accepted"), RETRY)
            return
        body = await self._body(service, headers, receive, send)
        if body is None:
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, _explained(send, service))

    async def _body(self, service: Probed, headers: dict[bytes, bytes], receive: Receive, send: Send) -> bytes | None:
        """The whole JSON body, or None when it was refused and answered."""
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            await _drain(receive)
            service.refused(415)
            await answer(send, 415, error_body("send the request as JSON with Content-Type: application/json"))
            return None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(receive, service.max_body_bytes)
        except TimeoutError:
            service.refused(408)
            await answer(send, 408, error_body(f"the body took longer than {BODY_SECONDS:g} s to arrive"))
            return None
        if body is None:
            service.refused(413)
            limit = service.max_body_bytes
            await answer(send, 413, error_body(f"the body is larger than {limit} bytes: send fewer candidates"))
        return body


def _authorise(
    headers: dict[bytes, bytes], client: tuple[str, int] | None, api_key: str | None
) -> tuple[int, str] | None:
    """None when the request may pass, else a status and the reason. Without a key only this machine may ask."""
    if api_key is not None:
        if hmac.compare_digest(_key_given(headers.get(b"authorization", b"")), api_key.encode()):
            return None
        return 401, "the header Authorization: Bearer <key> is missing or wrong"
    try:
        local = client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        local = False
    return None if local else (403, "without an API key the service answers loopback only: set UNISCALE_API_KEY")


def _key_given(authorization: bytes) -> bytes:
    """The key of `Bearer <key>`, or the password of `Basic`, which is how browsers send what a user typed."""
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _explained(send: Send, service: Probed) -> Send:
    """BentoML's message says how many things are wrong with a body; here it says which one is, and they are counted."""
    refused = False

    async def explain(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] == 400:
            refused = True  # another start is sent with the body, on which its length depends
            return
        if not refused:
            await send(message)
            return
        found = json.loads(message["body"])
        if problems := found.get("detail"):
            where = ".".join(map(str, problems[0]["loc"])) or "the body"
            others = f" (and {len(problems) - 1} more: see detail)" if problems[1:] else ""
            found["error"] = f"{where}: {problems[0]['msg']}{others}"
            service.refused(400)
        await answer(send, 400, found)

    return explain


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when it is larger than `limit` bytes (the rest is drained, up to a bound)."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            await _drain(receive, more=message.get("more_body", False))
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _drain(receive: Receive, more: bool = True) -> None:
    left = DRAIN_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(BODY_SECONDS):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)


async def answer(send: Send, status: int, body: dict[str, Any], headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Send a JSON answer."""
    await _respond(send, status, json.dumps(body).encode(), b"application/json", headers)


async def _respond(
    send: Send, status: int, body: bytes, kind: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})
