"""uvicorn's HTTP protocol with bounds where uvicorn has none: clients cannot pile up.

uvicorn drops a connection that is idle after an answer. One on which nothing was ever asked, whose next request begins
and never gets to the end of its head, or whose client does not read the answers, it would keep for good. From a head's
end on `serving.guard` bounds the body.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.schemas import error_body

HEAD_SECONDS = 10.0  # for a whole head: the first from the opening on, others from their first byte or the last answer
HEAD_BYTES = 65_536  # what is refused otherwise would first be held in memory
UNREAD_SECONDS = 10.0  # for answers that the kernel's buffers have no room for, until the client has read them


class BoundedProtocol(HttpToolsProtocol):
    """One connection; a head that is late is refused with 408, one that is too large with 431."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None  # from a pause of writing or a close on
        self._head: int | None = None  # bytes of a head that is not complete, after those that brought its beginning

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Whatever is no request in work, the rest of a refused body too, has to end in time."""
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        self._expect()
        if self._head is not None and self._head > HEAD_BYTES:
            self._refuse(431, f"the request's head is larger than {HEAD_BYTES} bytes")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more to expect."""
        self._stop_expecting()
        self._was_read()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head = 0  # a body may have come in the same bytes, and one read is bounded
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._head = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """A head that began while the request was in work has its time from now on."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()
        elif self._head is not None:
            self._expect()

    def timeout_keep_alive_handler(self) -> None:
        """No further request."""
        self._close()

    def pause_writing(self) -> None:
        """The client has to read on."""
        super().pause_writing()
        self._has_to_read()

    def resume_writing(self) -> None:
        """It did, but for a last answer's end."""
        if not self.transport.is_closing():
            self._was_read()
        super().resume_writing()

    def _expect(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_expecting()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_expecting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        if self._head is not None:
            self._refuse(408, f"the request's head took longer than {HEAD_SECONDS:g} s to arrive")
        self._close()

    def _refuse(self, status: int, message: str) -> None:
        body = json.dumps(error_body(message)).encode()
        kind = b"content-type: application/json\r\nconnection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + kind + length + body)
        self._head = None
        self._close()

    def _close(self) -> None:
        """Without waiting for good until the client has read what is left, which may be too little for a pause."""
        self.transport.close()
        self._has_to_read()

    def _has_to_read(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
