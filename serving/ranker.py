"""One worker's request path without HTTP: variant, deadline, fallback, serving log and telemetry around the engine."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import numpy as np

from serving.deployment import Deployment
from serving.engine import Ask, Engine, Prepared, Ranking, Scorer, popular
from serving.executor import BoundedExecutor, DeadlineError, OverloadedError
from serving.exploration import explore
from serving.input_log import InputLog
from serving.inputs import FeatureStoreError, UserFeatures
from serving.interleaving import draft
from serving.items import Catalogue, Snapshot
from serving.log_writer import LogWriter
from serving.schemas import RankRequest, error_body
from serving.shadows import Shadows
from serving.switch import Lineup, Switch
from serving.telemetry import STAGES, Telemetry

logger = logging.getLogger(__name__)

DEADLINE, FEATURES, MODEL = "deadline", "features", "model"  # reasons of a fallback


class FeatureReader(Protocol):
    """The online store (`serving.online_features.OnlineFeatures`)."""

    def read(self, user_id: str, query: str | None, asked: float) -> UserFeatures:
        """Features of a user and a query at an instant, in seconds; FeatureStoreError when the store cannot be read."""


@dataclass(frozen=True)
class Answer:
    """What goes back: an HTTP status, a JSON body and headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Ranker:
    """Answers ranking requests; thread-safe parts are shared, one instance a worker."""

    def __init__(
        self,
        deployment: Deployment,
        engine: Engine,
        switch: Switch,
        snapshot: Snapshot,
        features: FeatureReader,
        log: LogWriter,
        telemetry: Telemetry,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        shadow_log: LogWriter | None = None,
        input_log: InputLog | None = None,
        rng: np.random.Generator | None = None,
    ):
        self.deployment, self.engine, self.switch, self.snapshot = deployment, engine, switch, snapshot
        self.telemetry = telemetry
        self._features, self._log, self._now = features, log, now
        serving = deployment.serving
        self._executor = BoundedExecutor(serving.threads, serving.max_concurrency)
        self._shadows = Shadows(shadow_log, self.telemetry, serving.max_concurrency) if shadow_log else None
        self._input_log = input_log
        self._rng = rng or np.random.default_rng()

    async def rank(self, request: RankRequest) -> Answer:
        """The candidates' order by the user's variant, or as both variants draft it (`serving.interleaving`).

        A fallback when that cannot be had in time, and never late.
        """
        received = time.monotonic()
        if problem := self._problem(request):
            self.telemetry.refusals.labels("400").inc()
            return Answer(400, error_body(problem), {})
        lineup = self.switch.current  # one read: the request sees one line-up to its end
        variants = lineup.routing.of_user(request.user_id, self.deployment.salt)
        variant, version = lineup.routing.named(variants)
        request_id = request.request_id or uuid.uuid4().hex
        ask = Ask(
            user_id=request.user_id,
            query=request.query,
            scenario=request.scenario,
            context=request.context,
            item_ids=request.item_ids,
            ts=(request.ts or self._now()).astimezone(UTC),
        )
        catalogue = self.snapshot.get()
        fallback: str | None = None
        try:
            models = {name: lineup.models[lineup.routing.versions[name]] for name in variants}
            work = partial(self._work, models, ask, catalogue, received)
            deadline = received + self.deployment.serving.deadline_ms / 1000
            prepared, rankings, spent = await self._executor.run(work, deadline)
            if len(variants) > 1:
                ranking = draft(rankings, request.top_k, self.deployment.salt, request_id)
            else:
                ranking = explore(rankings[variant], self.deployment.serving.exploration, self._rng)
        except OverloadedError as error:
            self.telemetry.refusals.labels("429").inc()
            return Answer(429, error_body(str(error)), {"Retry-After": "1"})
        except DeadlineError:
            fallback = DEADLINE
        except FeatureStoreError:
            fallback = FEATURES
        except Exception:
            logger.exception("version %s could not rank a request", version)
            fallback = MODEL
        if fallback is not None:
            ranking, spent = popular(ask.item_ids, catalogue), {}
        answer = self._answer(request, request_id, ask, (variant, version), ranking, fallback, received, spent)
        if fallback is None:
            self._after(lineup, prepared, request_id, ask.ts, ranking.item_ids[: request.top_k])
        return answer

    async def rank_batch(self, requests: Sequence[RankRequest]) -> list[dict[str, Any]]:
        """Answers in order, each with its own status; one at a time, so a batch holds one slot and starves nobody."""
        answers = []
        for request in requests:
            answer = await self.rank(request)
            good = answer.status == 200
            answers.append(
                {
                    "status": answer.status,
                    "answer": answer.body if good else None,
                    "error": None if good else answer.body["error"],
                }
            )
        return answers

    def warm_up(self) -> None:
        """Rank one made-up request with every version, so that no user waits for a first run; then follow changes.

        Raises:
            FeatureStoreError: the online store cannot be read.
        """
        catalogue = self.snapshot.get()
        item_ids = list(catalogue.place_of)[: self.deployment.serving.smoke_candidates]
        for model in self.switch.current.models.values():
            asked = Ask("warm-up", None, [], {}, item_ids, self._now())
            self._work({"warm-up": model}, asked, catalogue, time.monotonic())
        self.switch.start()

    @property
    def full(self) -> bool:
        """Whether as many requests are in work as are accepted."""
        return self._executor.in_work >= self.deployment.serving.max_concurrency

    def probe(self) -> None:
        """Read the online store once; FeatureStoreError when it cannot be."""
        self._features.read("probe", None, self._now().timestamp())

    def state(self) -> dict[str, Any]:
        """What is loaded and how it does, for the health page."""
        return {
            "tag": self.deployment.tag,
            **self.switch.state(),
            "items": len(self.snapshot.get().place_of),
            "items_age_seconds": round(self.snapshot.age_seconds, 1),
            "items_error": self.snapshot.error,
            "in_work": self._executor.in_work,
            "compute": {version: model.state() for version, model in self.switch.current.models.items()},
            "exploration": self.deployment.serving.exploration.policy,
            "log": {"written": self._log.written, "dropped": self._log.dropped, "error": self._log.error},
        }

    def close(self) -> None:
        """Finish what was accepted, then write what was logged."""
        self.switch.close()
        self._executor.close()
        if self._shadows is not None:
            self._shadows.close()
        if self._input_log is not None:
            self._input_log.close()
        self._log.close()

    def _problem(self, request: RankRequest) -> str | None:
        limit = self.deployment.serving.max_candidates
        if len(request.item_ids) > limit:
            return f"{len(request.item_ids)} candidates, at most {limit} are ranked: send the best of the retrieval"
        if request.ts is not None and not self.deployment.serving.client_clock:
            return "ts is given, but this deployment goes by its own clock: leave ts out"
        return None

    def _work(
        self, models: Mapping[str, Scorer], ask: Ask, catalogue: Catalogue, received: float
    ) -> tuple[Prepared, dict[str, Ranking], dict[str, float]]:
        """The request's inputs, what each model makes of them, and the seconds of each stage."""
        started = time.monotonic()
        user = self._features.read(ask.user_id, ask.query, ask.ts.timestamp())
        read = time.monotonic()
        prepared = self.engine.prepare(ask, user, catalogue)
        ready = time.monotonic()
        rankings = {name: self.engine.rank(model, prepared) for name, model in models.items()}
        times = (received, started, read, ready, time.monotonic())
        spent = {stage: until - since for stage, since, until in zip(STAGES, times, times[1:], strict=False)}
        for stage, seconds in spent.items():
            self.telemetry.stages.labels(stage).observe(seconds)
        return prepared, rankings, spent

    def _after(self, lineup: Lineup, prepared: Prepared, request_id: str, ts: datetime, shown: Sequence[str]) -> None:
        """What is worked out of a model's answer once it is made: shadows' scores, and the log of inputs."""
        if self._shadows is not None and lineup.routing.shadows:
            idle = self._executor.in_work < self.deployment.serving.threads
            self._shadows.offer(lineup, prepared, request_id, ts, idle)
        if self._input_log is not None and not self._input_log.offer(request_id, ts, prepared, shown):
            self.telemetry.inputs_dropped.inc()

    def _answer(
        self,
        request: RankRequest,
        request_id: str,
        ask: Ask,
        served_by: tuple[str, str],
        ranking: Ranking,
        fallback: str | None,
        received: float,
        spent: Mapping[str, float],
    ) -> Answer:
        variant, version = served_by
        item_ids, scores = ranking.item_ids[: request.top_k], ranking.scores[: request.top_k]
        shown = [score if score == score else None for score in scores.tolist()]  # NaN is not itself
        seconds = time.monotonic() - received
        row = {
            "request_id": request_id,
            "ts": ask.ts,
            "served_at": self._now(),
            "user_id": ask.user_id,
            "query": ask.query,
            "scenario": list(ask.scenario),
            "variant": variant,
            "version": version,
            "item_ids": item_ids,
            "scores": shown,
            "teams": None if ranking.teams is None else ranking.teams[: request.top_k],
            "propensities": None if ranking.propensities is None else ranking.propensities[: request.top_k].tolist(),
            "candidates": len(ask.item_ids),
            "fallback": fallback,
            "latency_ms": 1000 * seconds,
            "features_hash": ranking.features_hash,
        }
        self._log.append(row)
        self.telemetry.stages.labels("total").observe(seconds)
        self.telemetry.answers.labels(variant, version, fallback or "none").inc()
        self.telemetry.candidates.observe(len(ask.item_ids))
        if ranking.unknown:
            self.telemetry.unknown_items.inc(len(ranking.unknown))
        body = {
            "request_id": request_id,
            "variant": variant,
            "version": version,
            "items": [{"item_id": item_id, "score": score} for item_id, score in zip(item_ids, shown, strict=True)],
            "unknown_items": ranking.unknown,
            "fallback": fallback,
            "latency_ms": round(1000 * seconds, 3),
        }
        timing = ", ".join(f"{stage};dur={1000 * each:.3f}" for stage, each in {**spent, "total": seconds}.items())
        return Answer(200, body, {"Server-Timing": timing})
