"""Load at a given rate, whatever the service does: open-loop Poisson arrivals, latency from the intended send time.

A client that waits for an answer before it asks again slows down with the service and so hides its queue (coordinated
omission). Here the arrivals are drawn beforehand and each request goes out at its own time.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic_core import from_json

from uniscale.errors import ServingError
from uniscale.progress import Progress

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
TIMEOUT_SECONDS = 10.0
CONNECTIONS = 512
IDLE_SECONDS = 2.0  # then a connection is not used again: a service that closes it just then resets the request
JSON = {"Content-Type": "application/json"}
WARM_UP = 5
GROWTH, STEPS = 2.0, 3  # of the search for the knee: the rate's factor, then halvings of the interval
KEPT_UP = 0.9  # share of the rate that answers must reach for the service to keep up


@dataclass(frozen=True)
class Load:
    """What one rate did. Latencies are of answered requests, in milliseconds from the intended send time."""

    rate: float  # intended, requests a second
    seconds: float
    sent: int
    answered: int
    achieved_rate: float  # answers a second, until the last one came
    latency_ms: dict[str, float] | None  # p50 … p99.9, max
    server_p50_ms: float | None
    errors: dict[str, int]  # status or exception -> requests
    fallbacks: dict[str, int]  # reason -> answers
    send_lag_p99_ms: float  # how late this client sent; large means the client is the bottleneck
    stolen: float | None = None  # share of this machine's processor time that its host gave to others, where it says so
    curve: list[tuple[float, float]] = field(default_factory=list)  # percentile, milliseconds
    by_second: list[tuple[int, float, float]] = field(default_factory=list)  # second of sending, median and slowest ms

    def holds(self, p99_ms: float) -> bool:
        """Whether the service kept up: no error, no fallback, p99 within the bound."""
        fine = not self.errors and not self.fallbacks and self.achieved_rate >= KEPT_UP * self.sent / self.seconds
        return fine and self.latency_ms is not None and self.latency_ms["p99"] <= p99_ms


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Times of a Poisson process within [0, seconds), sorted."""
    return np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))


def bodies_of(url: str, candidates: int, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Requests made of what the service offers at `/examples`.

    Raises:
        ServingError: the service does not answer.
    """
    try:
        answer = httpx.get(f"{url}/examples", headers=_headers(), timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ServingError(f"{url}/examples does not answer: {type(error).__name__}: {error}") from None
    known = answer.json()
    size = min(candidates, len(known["items"]))
    return [
        {
            "user_id": known["users"][int(rng.integers(len(known["users"])))],
            "query": known["queries"][int(rng.integers(len(known["queries"])))] if known["queries"] else None,
            "scenario": known["scenarios"][:1],
            "item_ids": [known["items"][place] for place in rng.choice(len(known["items"]), size, replace=False)],
        }
        for _ in range(count)
    ]


def load(url: str, bodies: Sequence[dict[str, Any]], rate: float, seconds: float, seed: int = 0) -> Load:
    """Send `bodies` in turn at `rate` requests a second for `seconds`.

    Raises:
        ServingError: nobody answers at all.
    """
    return asyncio.run(_load(url.rstrip("/"), bodies, rate, seconds, np.random.default_rng(seed)))


def find_knee(run: Callable[[float], Load], first_rate: float, p99_ms: float) -> tuple[float | None, list[Load]]:
    """The highest rate that holds: doubled until it does not, then the interval halved `STEPS` times.

    Returns:
        The rate (None where not even the first one holds), and every load tried.
    """
    tried: list[Load] = []

    def holds(rate: float) -> bool:
        tried.append(run(rate))
        return tried[-1].holds(p99_ms)

    good, bad = None, first_rate
    while holds(bad):
        good, bad = bad, bad * GROWTH
    if good is None:
        return None, tried
    for _ in range(STEPS):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good, tried


def as_json(loads: Sequence[Load], knee: float | None, p99_ms: float, candidates: int) -> dict[str, Any]:
    """What `load.json` holds."""
    return {
        "latency": "milliseconds from the intended send time",
        "candidates": candidates,
        "knee": {"rate": knee, "p99_ms": p99_ms},
        "loads": [asdict(one) for one in loads],
    }


async def _load(
    url: str, bodies: Sequence[dict[str, Any]], rate: float, seconds: float, rng: np.random.Generator
) -> Load:
    due = arrivals(rate, seconds, rng)
    latencies: list[float] = []
    sent_at: list[float] = []  # of those answered, seconds since the beginning
    lags: list[float] = []
    served: list[float] = []
    errors: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    progress = Progress(f"load of {rate:g}/s", len(due), "requests")
    encoded = [json.dumps(body).encode() for body in bodies]
    # aiohttp takes a third of httpx's processor time: client and service often share a machine.
    async with aiohttp.ClientSession(
        headers=JSON | _headers(),
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=IDLE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
    ) as client:
        for content in encoded[:WARM_UP]:
            try:
                async with client.post(f"{url}/rank", data=content) as answer:
                    await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ServingError(f"{url} does not answer: {type(error).__name__}: {error}") from None
        before = psutil.cpu_times()
        begin = time.perf_counter() + 0.05

        async def one(number: int, at: float) -> None:
            lags.append(time.perf_counter() - at)
            try:
                async with client.post(f"{url}/rank", data=encoded[number % len(encoded)]) as answer:
                    content = await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                errors[type(error).__name__] += 1
                return
            if answer.status != 200:
                errors[str(answer.status)] += 1
                return
            latencies.append(time.perf_counter() - at)
            sent_at.append(at - begin)
            said = from_json(content)
            served.append(said["latency_ms"])
            if said["fallback"] is not None:
                fallbacks[said["fallback"]] += 1

        async with asyncio.TaskGroup() as tasks:
            for number, offset in enumerate(due):
                await asyncio.sleep(max(0.0, begin + offset - time.perf_counter()))
                tasks.create_task(one(number, begin + offset))
                progress.advance()
        lasted = time.perf_counter() - begin
    progress.finish()
    milliseconds = 1000 * np.array(latencies)
    found = {f"p{p:g}": float(np.percentile(milliseconds, p)) for p in PERCENTILES} if latencies else {}
    grid = [*np.linspace(0, 99, 34), 99.5, 99.9, 100.0] if latencies else []
    return Load(
        rate=rate,
        seconds=seconds,
        sent=len(due),
        answered=len(latencies),
        achieved_rate=len(latencies) / max(lasted, seconds),
        latency_ms={**found, "max": float(milliseconds.max())} if latencies else None,
        server_p50_ms=float(np.median(served)) if served else None,
        errors=dict(errors),
        fallbacks=dict(fallbacks),
        send_lag_p99_ms=1000 * float(np.percentile(lags, 99)) if lags else 0.0,
        stolen=_stolen(before, psutil.cpu_times()),
        curve=[(float(p), float(np.percentile(milliseconds, p))) for p in grid],
        by_second=_by_second(np.array(sent_at), milliseconds),
    )


def _by_second(sent_at: NDArray[np.float64], milliseconds: NDArray[np.float64]) -> list[tuple[int, float, float]]:
    seconds = sent_at.astype(int)
    by = {int(second): milliseconds[seconds == second] for second in np.unique(seconds)}
    return [(second, float(np.median(those)), float(those.max())) for second, those in by.items()]


def _stolen(before: Any, after: Any) -> float | None:
    """Of psutil's processor times; a host that is shared takes time away without a trace in a process's own."""
    if not hasattr(after, "steal"):
        return None
    return (after.steal - before.steal) / max(sum(after) - sum(before), 1e-9)


def _headers() -> dict[str, str]:
    key = os.environ.get("UNISCALE_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
