"""Logs a sample of requests' model inputs as they were served, which offline features are compared with.

The rows hold what the models read, so a defect anywhere on the way (store, hashing, filling, order) shows in the
feature that it touches (`monitoring.skew`). A request belongs to the sample by the hash of its id; of its candidates
the first of the answer are kept, as those are what users see and what the samples are sure to hold. Text vectors are
left out: an encoder fitted on other days gives others.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rows import Rows
from serving.engine import Prepared
from serving.log_writer import LogWriter
from uniscale.hashing import unit_interval
from uniscale.samples import Level
from uniscale.sections import InputLogConfig

CAPACITY = 512  # rows that wait to be written; with a long history one takes about 100 KB


class InputLog:
    """Rows of `uniscale.serving_log.inputs_schema`; a full buffer drops and counts (`LogWriter.dropped`)."""

    def __init__(self, log: LogWriter, config: InputLogConfig):
        self.log, self._config = log, config

    def offer(self, request_id: str, ts: datetime, prepared: Prepared, shown: Sequence[str]) -> bool:
        """Take the inputs of an answer that showed these items, if the request is of the sample; False when dropped.

        Items unknown to the catalogue have no features and are left out.
        """
        if unit_interval(f"inputs:{request_id}") >= self._config.share:
            return True
        place = {item: number for number, item in enumerate(prepared.item_ids)}
        known = [item for item in shown[: self._config.items] if prepared.places[place[item]]]
        row = _features(prepared.rows, np.array([place[item] for item in known], np.int64))
        return self.log.append({"request_id": request_id, "ts": ts, "item_ids": known, **row})

    def close(self) -> None:
        """Write what is left."""
        self.log.close()


def _features(rows: Rows, candidates: NDArray[np.int64]) -> dict[str, Any]:
    """Feature: its value, or its values along the candidates chosen or the behaviours."""
    spec, behaviours = rows.spec, slice(-rows.spec.max_behaviours, None)
    found: dict[str, Any] = {"behaviour_ts": rows.behaviour_ts[behaviours].tolist()}
    levels: tuple[tuple[Level, NDArray[np.int64], NDArray[np.float32]], ...] = (
        ("request", rows.request_ids, rows.request_numbers),
        ("candidate", rows.candidate_ids[candidates], rows.candidate_numbers[candidates]),
        ("behaviour", rows.behaviour_ids[behaviours], rows.behaviour_numbers[behaviours]),
    )
    for level, ids, numbers in levels:
        features = (*spec.select(level, ("id",)), *spec.select(level, ("count", "number")))
        for feature, column in zip(features, (*ids.T, *numbers.T), strict=True):
            values = [None if value != value else value for value in column.tolist()]  # NaN is not itself
            found[feature.name] = values[0] if level == "request" else values
    return found
