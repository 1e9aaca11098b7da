"""Smoke test of a running service: real requests over HTTP, their latency, what it must answer, what it must refuse."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq

from serving.deployment import Deployment, Examples
from serving.routing import Routing
from uniscale.artifacts import atomic_folder, write_json
from uniscale.config import Config
from uniscale.errors import ServingError
from uniscale.progress import Progress

WARM_UP = 5  # requests before the clock counts
TIMEOUT_SECONDS = 10.0
JSON = {"Content-Type": "application/json"}


def client(url: str) -> httpx.Client:
    """A keep-alive client of a service, with the API key of the environment if there is one."""
    key = os.environ.get("UNISCALE_API_KEY")
    return httpx.Client(
        base_url=url, timeout=TIMEOUT_SECONDS, headers={"Authorization": f"Bearer {key}"} if key else {}
    )


def smoke(config: Config, url: str, deployment: Path, out: Path) -> dict[str, Any]:
    """Send `serving.smoke_requests` good requests of `serving.smoke_candidates` candidates, and a few bad ones.

    Writes `smoke.json` into `out`.

    Returns:
        What it holds: requests, candidates, p50_ms, p99_ms (client side, one at a time), server_p50_ms, variants
        (answers of each), fallbacks, checks (name -> passed) and passed (all of them).

    Raises:
        ServingError: the service does not answer, or refuses a good request.
    """
    deployment, out = Path(deployment), Path(out)
    manifest = Deployment.load(deployment)
    with client(url) as http:
        bodies = good_requests(config, deployment)
        progress = Progress("smoke test", len(bodies), "requests")
        answers, seconds = [], []
        for body in bodies[:WARM_UP]:
            ask(http, {**body, "request_id": f"warm-up-{body['request_id']}"})
        for body in bodies:
            started = time.perf_counter()
            answers.append(ask(http, body))
            seconds.append(time.perf_counter() - started)
            progress.advance()
        progress.finish()
        checks = (
            _answer_checks(manifest, bodies, answers)
            | _page_checks(http, manifest)
            | _refusals(http, bodies[0], manifest)
        )
    report = {
        "requests": len(bodies),
        "candidates": len(bodies[0]["item_ids"]),
        "p50_ms": 1000 * float(np.quantile(seconds, 0.5)),
        "p99_ms": 1000 * float(np.quantile(seconds, 0.99)),
        "server_p50_ms": float(np.median([answer["latency_ms"] for answer in answers])),
        "variants": dict(Counter(answer["variant"] for answer in answers)),
        "fallbacks": sum(answer["fallback"] is not None for answer in answers),
        "checks": checks,
        "passed": all(checks.values()),
    }
    with atomic_folder(out) as folder:
        write_json(folder / "smoke.json", report)
    return report


def ask(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """One answer of `POST /rank`; ServingError when there is none."""
    try:
        answer = http.post("/rank", content=json.dumps(body), headers=JSON)
    except httpx.HTTPError as error:
        raise ServingError(f"{http.base_url} does not answer: {type(error).__name__}: {error}") from None
    if answer.status_code != 200:
        raise ServingError(f"{http.base_url}rank answered {answer.status_code} to a good request: {answer.text[:500]}")
    return answer.json()


def good_requests(config: Config, deployment: Path) -> list[dict[str, Any]]:
    """Requests of known users and queries (`examples.json`) with random known candidates, by the run's seed."""
    rng = np.random.default_rng(config.seed)
    examples = Examples.load(deployment)
    manifest = Deployment.load(deployment)
    items = pq.ParquetFile(deployment / "features" / "items.parquet").read(columns=["item_id"])["item_id"].to_pylist()
    count = min(config.serving.smoke_candidates, len(items))
    return [
        {
            "request_id": f"smoke-{number}",
            "user_id": examples.users[number % len(examples.users)],
            "query": examples.queries[number % len(examples.queries)] if examples.queries else None,
            "scenario": manifest.scenarios[:1],
            "item_ids": [items[place] for place in rng.choice(len(items), count, replace=False)],
        }
        for number in range(config.serving.smoke_requests)
    ]


def _answer_checks(
    manifest: Deployment, bodies: list[dict[str, Any]], answers: list[dict[str, Any]]
) -> dict[str, bool]:
    def every(holds: Callable[[dict[str, Any], dict[str, Any]], bool]) -> bool:
        return all(holds(body, answer) for body, answer in zip(bodies, answers, strict=True))

    def descending(answer: dict[str, Any]) -> bool:
        scores = [item["score"] for item in answer["items"]]
        return None not in scores and scores == sorted(scores, reverse=True)

    routing = Routing.of(manifest)
    by_score = manifest.mode == "split" and manifest.serving.exploration.policy == "none"
    return {
        "every candidate comes back once": every(
            lambda body, answer: sorted(item["item_id"] for item in answer["items"]) == sorted(body["item_ids"])
        ),
        "scores fall from first to last": not by_score or every(lambda _, answer: descending(answer)),
        "no fallback": every(lambda _, answer: answer["fallback"] is None),
        "users get their variant and its version": every(
            lambda body, answer: (
                (answer["variant"], answer["version"]) == routing.named(routing.of_user(body["user_id"], manifest.salt))
            )
        ),
    }


def _page_checks(http: httpx.Client, manifest: Deployment) -> dict[str, bool]:
    health, ready, metrics = (http.get(path) for path in ("/healthz", "/readyz", "/metrics"))
    return {
        "healthz names the deployment": health.status_code == 200 and health.json()["tag"] == manifest.tag,
        "readyz is ready": ready.status_code == 200,
        "metrics count the answers": metrics.status_code == 200 and "uniscale_answers_total" in metrics.text,
    }


def _refusals(http: httpx.Client, good: dict[str, Any], manifest: Deployment) -> dict[str, bool]:
    too_many = {**good, "item_ids": [f"i{number}" for number in range(manifest.serving.max_candidates + 1)]}
    bad = {
        "an empty candidate list": (json.dumps({**good, "item_ids": []}), JSON, 400),
        "a wrong type": (json.dumps({**good, "user_id": 17}), JSON, 400),
        "an unknown field": (json.dumps({**good, "boost": 2}), JSON, 400),
        "too many candidates": (json.dumps(too_many), JSON, 400),
        "a body that is no JSON": ("{", JSON, 400),
        "another content type": (json.dumps(good), {"Content-Type": "text/plain"}, 415),
        "an oversized body": (" " * (manifest.serving.max_body_bytes + 1), JSON, 413),
    }
    checks = {}
    for name, (body, headers, status) in bad.items():
        answer = http.post("/rank", content=body, headers=headers)
        checks[f"{name} is refused with {status}"] = answer.status_code == status and "error" in answer.json()
    after = ask(http, {**good, "request_id": "smoke-after-bad-ones"})
    checks["a good request is answered after the bad ones"] = after["fallback"] is None
    return checks
