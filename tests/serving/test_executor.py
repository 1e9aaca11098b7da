"""Slots are held by threads, not by waiting callers; late and surplus requests are told so at once."""

import asyncio
import threading
import time

import pytest

from serving.executor import BoundedExecutor, DeadlineError, OverloadedError


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_result_and_exception_pass_through():
    async def main():
        executor = BoundedExecutor(threads=1, capacity=2)
        assert await executor.run(lambda: 42, soon(10)) == 42
        with pytest.raises(ZeroDivisionError):
            await executor.run(lambda: 1 / 0, soon(10))
        await until(lambda: executor.in_work == 0)
        executor.close()

    asyncio.run(main())


def test_a_late_thread_keeps_its_slot_until_it_is_done():
    async def main():
        executor = BoundedExecutor(threads=1, capacity=1)
        release = threading.Event()
        with pytest.raises(DeadlineError):
            await executor.run(release.wait, soon(0.01))
        with pytest.raises(OverloadedError):
            await executor.run(lambda: 1, soon(10))
        release.set()
        await until(lambda: executor.in_work == 0)
        assert await executor.run(lambda: 1, soon(10)) == 1
        executor.close()

    asyncio.run(main())


def test_queued_work_past_its_deadline_never_starts():
    async def main():
        executor = BoundedExecutor(threads=1, capacity=2)
        release, started = threading.Event(), []
        running = asyncio.create_task(executor.run(release.wait, soon(10)))
        await until(lambda: executor.in_work == 1)
        with pytest.raises(DeadlineError):
            await executor.run(lambda: started.append(1), soon(0.01))
        assert executor.in_work == 1  # the queued one gave its slot back
        release.set()
        await running
        executor.close()
        assert started == []

    asyncio.run(main())


def test_a_failure_after_the_deadline_is_silent():
    """Warnings are errors here: asyncio would warn of an exception never retrieved."""

    async def main():
        executor = BoundedExecutor(threads=1, capacity=1)
        release = threading.Event()

        def fail():
            release.wait()
            raise RuntimeError("too late to matter")

        with pytest.raises(DeadlineError):
            await executor.run(fail, soon(0.01))
        release.set()
        await until(lambda: executor.in_work == 0)
        await asyncio.sleep(0)
        executor.close()

    asyncio.run(main())
