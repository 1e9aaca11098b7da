"""A bounded thread pool with deadlines: full means refused at once, late means answered without the work.

BentoML's own `timeout`, `threads` and `max_concurrency` do not bound work that already runs (after its 504 the thread
goes on and its slot counts as free), so the service brings this one: a slot is free when its thread is.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class OverloadedError(Exception):
    """As many requests are in work as the service accepts; the caller answers 429 with Retry-After."""


class DeadlineError(Exception):
    """The work was not done by its deadline; what runs still is not interrupted, and holds its slot."""


class BoundedExecutor:
    """At most `capacity` requests queued or running on `threads` threads."""

    def __init__(self, threads: int, capacity: int):
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rank")
        self._capacity = capacity
        self._lock = threading.Lock()
        self._in_work = 0

    @property
    def in_work(self) -> int:
        """Requests queued or running now."""
        return self._in_work

    async def run(self, work: Callable[[], T], deadline: float) -> T:
        """Result of `work()` on a pool thread, by `deadline` (seconds of `time.monotonic`).

        Work whose deadline passes while it is queued is never started.

        Raises:
            OverloadedError: no slot is free.
            DeadlineError: the deadline passed first.
        """
        with self._lock:
            if self._in_work >= self._capacity:
                raise OverloadedError(f"{self._in_work} requests are in work, as many as are accepted")
            self._in_work += 1
        job = self._pool.submit(work)
        job.add_done_callback(self._release)
        waiter = asyncio.wrap_future(job)
        done, _ = await asyncio.wait({waiter}, timeout=max(deadline - time.monotonic(), 0.0))
        if done:
            return waiter.result()
        waiter.add_done_callback(_retrieve)
        job.cancel()
        raise DeadlineError("the deadline passed before the work was done")

    def offer(self, work: Callable[[], object]) -> bool:
        """Run `work()` some time, its result and exceptions being its own affair; False when no slot is free."""
        with self._lock:
            if self._in_work >= self._capacity:
                return False
            self._in_work += 1
        self._pool.submit(work).add_done_callback(self._release)
        return True

    def close(self) -> None:
        """Wait for what runs, drop what is queued."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _release(self, _: "Future[Any]") -> None:
        with self._lock:
            self._in_work -= 1


def _retrieve(waiter: "asyncio.Future[T]") -> None:
    """Look at a late result's exception, which asyncio would otherwise report as never retrieved."""
    if not waiter.cancelled():
        waiter.exception()
