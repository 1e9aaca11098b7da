"""Shadow variants: scored on what users asked, logged beside the serving log, never shown.

They run on a thread of their own after the answer has gone, on the tensors that the answer was made from. While user
requests wait for a core a shadow is dropped, and counted: its log is a sample, its users' latency is not its price.
"""

import logging
import time
from datetime import datetime
from functools import partial

import numpy as np

from serving.engine import Engine, Prepared
from serving.executor import BoundedExecutor
from serving.log_writer import LogWriter
from serving.switch import Lineup
from serving.telemetry import Telemetry

logger = logging.getLogger(__name__)


class Shadows:
    """Scores shadows of a line-up behind the answers."""

    def __init__(self, log: LogWriter, telemetry: Telemetry, capacity: int):
        self._log, self._telemetry = log, telemetry
        self._executor = BoundedExecutor(1, capacity)

    def offer(self, lineup: Lineup, prepared: Prepared, request_id: str, ts: datetime, idle: bool) -> None:
        """Score every shadow of the line-up some time; dropped and counted unless the worker is idle enough."""
        for name, target in lineup.routing.shadows.items():
            work = partial(self._score, lineup, name, target.version, prepared, request_id, ts)
            if not idle or not self._executor.offer(work):
                self._telemetry.shadows.labels("dropped").inc()

    def close(self) -> None:
        """Finish what runs, drop what waits, write the log."""
        self._executor.close()
        self._log.close()

    def _score(
        self, lineup: Lineup, name: str, version: str, prepared: Prepared, request_id: str, ts: datetime
    ) -> None:
        started = time.perf_counter()
        try:
            ranking = Engine.rank(lineup.models[version], prepared)
        except Exception:
            logger.exception("shadow %s, version %s, could not score a request", name, version)
            self._telemetry.shadows.labels("failed").inc()
            return
        row = {
            "request_id": request_id,
            "ts": ts,
            "variant": name,
            "version": version,
            "item_ids": ranking.item_ids,
            "scores": [None if np.isnan(score) else float(score) for score in ranking.scores],
            "latency_ms": 1000 * (time.perf_counter() - started),
            "features_hash": ranking.features_hash,
        }
        if self._log.append(row):
            self._telemetry.shadows.labels("scored").inc()
        else:
            self._telemetry.shadows.labels("dropped").inc()
