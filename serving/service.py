"""The BentoML service: `serving.ranker` over HTTP, behind the guard; everything heavy loads in the worker.

BentoML's supervisor imports this module too, so torch and Feast are imported by the worker's constructor. Tracing,
access log and BentoML's own request metrics are off: they cost more than half of a request's overhead, and the
metrics label by raw path (`serving.telemetry` has bounded ones).

Environment: UNISCALE_SERVING_LOG (folder of the serving log; by default `serving_log` where BentoML starts its workers,
in the Bento's source), UNISCALE_FEATURES (features folder with the online store; the Bento's own copy by default),
UNISCALE_ROUTING (file that says which model answers whom while the service runs; none by default), UNISCALE_API_KEY or
UNISCALE_API_KEY_FILE (asked for as `Authorization: Bearer`; without one only loopback is answered), UNISCALE_OWNER
(process with which to end).
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bentoml
from bentoml import get_current_service
from bentoml.exceptions import BentoMLException
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.responses import Response
from uvicorn.config import HTTP_PROTOCOLS

from serving.connections import BoundedProtocol
from serving.deployment import Examples
from serving.guard import Guard
from serving.openapi import document
from serving.process import api_key, end_with
from serving.schemas import RankBatchRequest, RankBatchResponse, RankRequest, RankResponse, Shares, error_body
from uniscale.errors import ServingError

PACKED = Path(__file__).resolve().parent.parent / "deployment"  # beside the packages inside a Bento
PROBE_SECONDS = 1.0
PAGE_CANDIDATES = 500


@bentoml.service(
    name="uniscale_ranker",
    traffic={"timeout": 30},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "rank,rank_batch,healthz,readyz,livez,metrics"},
)
class RankingService:
    """Ranks a request's candidates by the model of its user's variant."""

    def __init__(self) -> None:
        # First, as the supervisor starts a worker that fails again and again.
        if owner := os.environ.get("UNISCALE_OWNER"):
            threading.Thread(target=end_with, args=(int(owner), _stop_supervisor), daemon=True).start()
        from serving.loader import load_ranker

        # BentoML logs a traceback for every body that is not a request, which would let anyone fill the disk.
        logging.getLogger("bentoml._internal.server.http_app").addFilter(_is_ours)
        multiprocess, routing = (os.environ.get(name) for name in ("PROMETHEUS_MULTIPROC_DIR", "UNISCALE_ROUTING"))
        self.api_key = api_key(os.environ)
        self.ranker = load_ranker(
            PACKED,
            Path(os.environ.get("UNISCALE_FEATURES", PACKED / "features")),
            Path(os.environ.get("UNISCALE_SERVING_LOG", "serving_log")),
            Path(multiprocess) if multiprocess else None,
            Path(routing) if routing else None,
        )
        self.max_body_bytes = self.ranker.deployment.serving.max_body_bytes
        # BentoML wraps an API anew, and inspects its signature, whenever it is looked up: once is enough.
        vars(self).update({name: getattr(self, name) for name in ("rank", "rank_batch")})

    @bentoml.api(route="/rank", output_spec=RankResponse)
    async def rank(self, request: RankRequest, /) -> Any:
        """Order `item_ids` for a user and a query; ids in, scores out, features are looked up."""
        answer = await self.ranker.rank(request)
        return _json(answer.body, answer.status, answer.headers)

    @bentoml.api(route="/rank_batch", output_spec=RankBatchResponse)
    async def rank_batch(self, batch: RankBatchRequest, /) -> Any:
        """Order several lists, one after the other; each answer has its own status."""
        return _json({"answers": await self.ranker.rank_batch(batch.requests)})

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        deployment = self.ranker.deployment
        return document(deployment.tag, deployment.serving.max_candidates)

    def examples(self) -> dict[str, Any]:
        """What the search page offers: some users and queries, and the most popular items as candidates."""
        limit = min(self.ranker.deployment.serving.max_candidates, PAGE_CANDIDATES)
        examples = Examples.load(PACKED)
        return {
            "users": examples.users,
            "queries": examples.queries,
            "items": self.ranker.snapshot.get().most_popular(limit),
            "scenarios": self.ranker.deployment.scenarios,
        }

    def health(self) -> dict[str, Any]:
        """What is loaded and how it does."""
        return {"status": "ok", "pid": os.getpid(), **self.ranker.state()}

    async def experiment(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Change the variants' shares of the users, or the mode; answers what is in force, or why it did not change."""
        try:
            asked = Shares.model_validate_json(body)
        except ValidationError as error:
            return 400, error_body(str(error.errors()[0]["msg"]))
        salt = self.ranker.deployment.salt
        if asked.salt not in (None, salt):
            return 409, error_body(f"users are assigned by the salt {salt!r}, which a running service does not change")
        try:
            routing = await asyncio.to_thread(self.ranker.switch.share, asked.weights, asked.mode)
        except ServingError as error:
            return 409, error_body(str(error))
        return 200, {"salt": salt, "weights": routing.weights, "mode": routing.mode}

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether the models are loaded (they are, once this object exists) and the online store answers."""
        try:
            await asyncio.wait_for(asyncio.to_thread(self.ranker.probe), PROBE_SECONDS)
        except TimeoutError:
            return False, {"status": "not ready", "error": f"the online store took more than {PROBE_SECONDS:g} s"}
        except Exception as error:
            return False, {"status": "not ready", "error": str(error)}
        return True, {"status": "ready"}

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return self.ranker.telemetry.exposition()

    def full(self) -> bool:
        """Whether another request would be refused."""
        return self.ranker.full

    def refused(self, status: int) -> None:
        """Count a refusal."""
        self.ranker.telemetry.refusals.labels(str(status)).inc()

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Finish what was accepted and write the serving log."""
        self.ranker.close()


def _json(body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(body), status, headers, media_type="application/json")  # five times as fast as json.dumps


def _stop_supervisor() -> None:
    os.kill(os.getppid(), signal.SIGTERM)


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], ValidationError))


def _live() -> Any:
    try:
        return get_current_service()
    except BentoMLException:  # before start-up has ended, or after shutdown began
        return None


RankingService.add_asgi_middleware(Guard, service=_live)  # type: ignore[attr-defined]
# BentoML starts its workers with uvicorn's default protocol, and has no setting for another.
HTTP_PROTOCOLS["auto"] = f"{BoundedProtocol.__module__}:{BoundedProtocol.__qualname__}"
