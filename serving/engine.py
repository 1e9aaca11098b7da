"""The ranking engine: a request and its user's features in, the candidates' order and scores out; no HTTP, no files.

User and query are worked on once a request; candidates meet that state inside the model (list-wise, UniScale 3.3.2).
Rows are stacked by `models.rows` and made into tensors by `models.batches`, as in training, so a served score is the
offline score of the same row (to the bit with the same weights in the same precision, threads and batch shape; what
float16 on disk and lower precisions cost is gated apart).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
import xxhash
from numpy.typing import NDArray

from features.context import context_columns
from models.batches import Batch, to_batch
from models.rows import ItemVectors, Rows
from serving.cuda_graphs import Shape
from serving.inputs import UserFeatures, context_id
from serving.items import Catalogue
from serving.user_states import History
from uniscale.samples import SampleSpec

QUERIES_KEPT = 4096  # encoded query texts in memory, a few hundred bytes each
CONTEXTS_KEPT = 1024  # derived contexts in memory


class Scorer(Protocol):
    """A loaded model on its device (`serving.served_model.ServedModel`).

    `shapes`: of the requests so far, where the first of each takes longer; none where all take the same road.
    """

    shapes: set[Shape]

    def score(self, batch: Batch, history: History | None = None) -> torch.Tensor:
        """Calibrated probabilities, (N, T), on the CPU; with the `history` of a batch of one request, by its state."""

    def meet(self, shapes: Iterable[Shape]) -> None:
        """Prepare for requests of these shapes, which a model that this one replaces had."""

    def state(self) -> dict[str, Any]:
        """For the health page."""


class Encoder(Protocol):
    """Maps texts to vectors (`features.text.TextEncoder`)."""

    def encode(self, texts: Sequence[str | None]) -> NDArray[np.float32]:
        """(n, text_dim)."""


@dataclass(frozen=True)
class Ask:
    """What is to be ranked, for whom and when."""

    user_id: str
    query: str | None
    scenario: Sequence[str]
    context: Mapping[str, object]
    item_ids: Sequence[str]
    ts: datetime  # with a time zone


@dataclass(frozen=True)
class Ranking:
    """All candidates in their order; an item that the catalogue does not have comes last, with the score NaN."""

    item_ids: list[str]
    scores: NDArray[np.float32]  # (N,), in that order
    unknown: list[str]
    features_hash: int = 0  # of every model input; 0 where no model was asked
    propensities: NDArray[np.float64] | None = None  # (N,) where the order was drawn (`serving.exploration`)
    teams: list[str] | None = None  # (N,) variant that drafted each item, where two did (`serving.interleaving`)


@dataclass(frozen=True)
class Prepared:
    """A request's tensors, made once and read by its variant's model and by shadows."""

    item_ids: Sequence[str]
    places: NDArray[np.int64]  # (N,) in the catalogue, 0 for the unknown
    rows: Rows  # R = 1
    batch: Batch  # of the rows
    history: History  # of the batch's user, cut to what the batch holds
    features_hash: int  # of every model input


class Engine:
    """What all models of one spec share: a request as tensors, and scores as an order."""

    def __init__(self, spec: SampleSpec, vectors: ItemVectors, encoder: Encoder | None = None):
        assert encoder is not None or not spec.text_dim, "the spec has text, so it needs the encoder of its features"
        self.spec, self.vectors = spec, vectors
        self._encode = lru_cache(QUERIES_KEPT)(lambda query: encoder.encode([query])) if encoder else None
        self._given = [f for f in spec.select("request") if f.block == "context"]
        self._ids, self._numbers = (
            [f.name for f in spec.select("request") if (f.kind == "id") == ids] for ids in (True, False)
        )
        self._behaviours = [f.name for f in spec.select("behaviour", ("id",))]
        self._behaviour_numbers = len(spec.select("behaviour")) - len(self._behaviours)
        self._no_text = np.zeros((1, spec.text_dim), np.float32)

    def prepare(self, ask: Ask, user: UserFeatures, catalogue: Catalogue) -> Prepared:
        """The request as any model reads it."""
        places = catalogue.places(ask.item_ids)
        rows = self.rows(ask, user, catalogue, places)
        batch = to_batch(rows, self.vectors)
        history = History(ask.user_id, events_of(rows)[-self.spec.max_behaviours :])
        return Prepared(ask.item_ids, places, rows, batch, history, _hash(rows))

    @staticmethod
    def rank(model: Scorer, prepared: Prepared) -> Ranking:
        """Order the candidates by the primary task's probability, ties in the order given."""
        scores = model.score(prepared.batch, prepared.history)[:, 0].numpy()
        return _ordered(
            prepared.item_ids,
            prepared.places,
            keys=scores,
            scores=scores,
            features_hash=prepared.features_hash,
        )

    def rows(self, ask: Ask, user: UserFeatures, catalogue: Catalogue, places: NDArray[np.int64]) -> Rows:
        """The request as one list-wise row, R = 1, before tensors.

        As `Rows.of` stacks it, without checking and converting every column: that costs more than the rest of it.
        """
        known = catalogue.places(user.behaviour_items)
        # A store fed by a stream may already hold what this user did later than a replayed request.
        past = user.behaviour_ts < ask.ts.timestamp()
        count = int(past.sum())
        values = {**user.values, **self._context(ask)}
        behaviours = [user.behaviours[name] for name in self._behaviours]
        return Rows(
            spec=self.spec,
            offsets=np.array([0, len(places)]),
            behaviour_offsets=np.array([0, count]),
            request_ids=np.array([[values.get(name, 0) for name in self._ids]], np.int64),
            request_numbers=np.array([[values.get(name, 0.0) for name in self._numbers]], np.float32),
            query_text=self._no_text if self._encode is None else np.asarray(self._encode(ask.query), np.float32),
            domain=np.zeros(1, np.int64),
            scenarios=np.array([[name in ask.scenario for name in self.spec.scenarios]], np.float32),
            ts=np.array([int(ask.ts.timestamp())]),
            candidate_ids=catalogue.rows.candidate_ids[places],
            candidate_numbers=catalogue.rows.candidate_numbers[places],
            item=catalogue.rows.item[places],
            labels=np.zeros((len(places), len(self.spec.tasks)), np.float32),
            behaviour_ids=np.stack(behaviours, axis=1)[past] if behaviours else np.zeros((count, 0), np.int64),
            behaviour_numbers=np.zeros((count, self._behaviour_numbers), np.float32),
            behaviour_index=catalogue.rows.item[known][past],
            behaviour_ts=user.behaviour_ts[past],
        )

    def _context(self, ask: Ask) -> dict[str, int]:
        given = {f"context_{name}": value for name, value in ask.context.items()}
        hour = ask.ts.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        values = {**given, **_derived_context(hour, tuple(ask.scenario))}
        return {feature.name: context_id(values.get(feature.name)) for feature in self._given}


@lru_cache(CONTEXTS_KEPT)
def _derived_context(hour: datetime, scenario: tuple[str, ...]) -> dict[str, str]:
    """Context that `features.context` derives: it changes by the hour, so a worker works it out once an hour."""
    columns = context_columns(pa.array([hour], pa.timestamp("us", tz="UTC")), [scenario])
    return {name: column[0].as_py() for name, column in columns.items()}


def popular(item_ids: Sequence[str], catalogue: Catalogue) -> Ranking:
    """The fallback: by popularity, without scores, for a popularity is not a probability."""
    places = catalogue.places(item_ids)
    return _ordered(
        item_ids, places, keys=catalogue.popularity[places], scores=np.full(len(places), np.nan, np.float32)
    )


def _ordered(
    item_ids: Sequence[str],
    places: NDArray[np.int64],
    keys: NDArray[np.float32],
    scores: NDArray[np.float32],
    features_hash: int = 0,
) -> Ranking:
    known = places > 0
    order = np.argsort(-np.where(known, keys, -np.inf), kind="stable").tolist()
    return Ranking(
        item_ids=[item_ids[place] for place in order],
        scores=np.where(known, scores, np.float32("nan"))[order],
        unknown=[item_ids[place] for place in np.flatnonzero(~known).tolist()],
        features_hash=features_hash,
    )


def events_of(rows: Rows) -> NDArray[np.int64]:
    """All that a model can read of each behaviour, (B, ·), numbers by their bits."""
    numbers = np.ascontiguousarray(rows.behaviour_numbers).view(np.int32)
    return np.column_stack([rows.behaviour_ids, numbers, rows.behaviour_index, rows.behaviour_ts]).astype(np.int64)


def _hash(rows: Rows) -> int:
    digest = xxhash.xxh64()
    for values in (
        rows.request_ids,
        rows.request_numbers,
        rows.query_text,
        rows.scenarios,
        rows.ts,
        rows.behaviour_ids,
        rows.behaviour_numbers,
        rows.behaviour_ts,
        rows.behaviour_index,
        rows.candidate_ids,
        rows.candidate_numbers,
        rows.item,
    ):
        digest.update(np.ascontiguousarray(values).tobytes())
    unsigned = digest.intdigest()
    return unsigned - (1 << 64) if unsigned >= (1 << 63) else unsigned
