"""Judged rows: the same labelled candidates with the scores of one or two models, and every measure that follows.

Measures of a task are keyed `click.gauc`, of the other model `champion.click.gauc`; n rows, T tasks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import bootstrap, metrics
from models.cells import Codes, Floats
from uniscale.errors import DataError

HIT_AT, NDCG_AT = 5, 10
COMPARED = ("auc", "gauc", "uauc", "qauc", f"hr@{HIT_AT}", f"ndcg@{NDCG_AT}")  # higher is better in all of them


@dataclass(frozen=True)
class Judged:
    """n rows; codes number requests, users, (user, query) pairs and days from 0."""

    request: Codes
    user: Codes
    group: Codes
    day: Codes
    labels: Mapping[str, NDArray]  # task: (n,) 0/1, in-domain
    attributed: Mapping[str, NDArray]  # task: (n,) 0/1, from any domain
    scores: Mapping[str, Mapping[str, Floats]]  # model: task: (n,) calibrated probabilities


@dataclass(frozen=True)
class Slice:
    """A named part of the rows."""

    by: str
    name: str
    rows: NDArray[np.bool_]


@dataclass
class Measures:
    """Flat measures by key, and why those that are null could not be computed."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: float, reason: str) -> None:
        """Keep a value; one that is not finite becomes null with its reason."""
        finite = math.isfinite(value)
        self.values[key] = value if finite else None
        if not finite:
            self.reasons[key] = reason


def measure(judged: Judged, found: Measures) -> None:
    """Add every measure of every model and task, and the volume they rest on."""
    first = next(iter(judged.labels))
    for model, scores in judged.scores.items():
        prefix = "" if model == "candidate" else f"{model}."
        for task, labels in judged.labels.items():
            for name, value in _of_task(judged, labels, scores[task]):
                found.set(f"{prefix}{task}.{name}", value, _why(labels, task))
        for task, labels in judged.attributed.items():
            why = _why(labels, f"attributed {task}")
            found.set(f"{prefix}attributed.{task}.auc", metrics.auc(labels, scores[task]), why)
            found.set(f"{prefix}attributed.{task}.gauc", metrics.gauc(labels, scores[task], judged.group), why)
    labels = judged.labels[first]
    counts = metrics.grouped_auc(labels, judged.scores["candidate"][first], judged.group)
    hits = metrics.hit_rate(labels, judged.scores["candidate"][first], judged.request, HIT_AT)
    volume = {
        "rows": len(labels),
        "requests": len(np.unique(judged.request)),
        "users": len(np.unique(judged.user)),
        "groups": int((counts.impressions > 0).sum()),
        "valid_group_share": counts.valid_share,
        "positives": int(labels.sum()),
        f"requests_of_at_most_{HIT_AT}": hits.too_short,
    }
    for task, task_labels in judged.labels.items():
        volume[f"{task}_positives"] = int(task_labels.sum())
    for name, value in volume.items():
        found.set(f"evaluation.{name}", value, "there are no rows")


def _of_task(judged: Judged, labels: NDArray, scores: Floats) -> Iterator[tuple[str, float]]:
    grouped = metrics.grouped_auc(labels, scores, judged.group)
    ndcg = metrics.ndcg(labels, scores, judged.request, NDCG_AT)
    yield "auc", metrics.auc(labels, scores)
    yield "gauc", grouped.gauc
    yield "uauc", metrics.uauc(labels, scores, judged.user, judged.day)
    yield "qauc", grouped.qauc
    yield f"hr@{HIT_AT}", metrics.hit_rate(labels, scores, judged.request, HIT_AT).value
    yield f"ndcg@{NDCG_AT}", float(np.nanmean(ndcg)) if np.isfinite(ndcg).any() else math.nan
    yield "log_loss", metrics.log_loss(labels, scores)
    yield "calibration_ratio", metrics.calibration_ratio(labels, scores)
    yield "ece", metrics.expected_calibration_error(labels, scores)


def compare(
    judged: Judged, slices: Sequence[Slice], resamples: int, confidence: float, seed: int, found: Measures
) -> list[dict[str, Any]]:
    """Add `difference.*` (candidate - champion) with paired intervals, and give the table of slices.

    Without a champion the slices hold the candidate's values alone. Users are the units of the bootstrap.
    """
    tasks = list(judged.labels)
    primary, models = tasks[0], list(judged.scores)
    units = int(judged.user.max(initial=-1)) + 1
    table = [_slice_row(judged, part, primary) for part in slices]
    if len(models) < 2:
        return table
    asked: dict[str, bootstrap.Measure] = {}
    for task in tasks:
        asked |= {f"{task}.{name}": m for name, m in _resampled(judged, task, units).items()}
    for place, part in enumerate(slices):
        scores = [judged.scores[model][primary][part.rows] for model in models]
        labels = judged.labels[primary][part.rows]
        asked[f"slice {place}"] = bootstrap.WeightedAUC(labels, scores, judged.user[part.rows])
    try:
        drawn = bootstrap.resample(asked, units, resamples, seed)
    except DataError as error:
        for key in (key for key in asked if not key.startswith("slice ")):
            found.values[f"difference.{key}"], found.reasons[f"difference.{key}"] = None, str(error)
        return table
    for key, values in drawn.items():
        difference = _difference(values, confidence)
        if key.startswith("slice "):
            table[int(key.removeprefix("slice "))]["difference"] = difference
            continue
        found.values[f"difference.{key}"] = difference
        if difference is None:
            found.reasons[f"difference.{key}"] = "undefined on these rows or on too many resamples of their users"
    return table


def _resampled(judged: Judged, task: str, units: int) -> dict[str, bootstrap.Measure]:
    """The compared measures of a task as functions of weights of users."""
    labels = judged.labels[task]
    scores = [judged.scores[model][task] for model in judged.scores]
    unit_of_group, unit_of_request = _owner(judged.group, judged.user), _owner(judged.request, judged.user)
    grouped = [metrics.grouped_auc(labels, s, judged.group) for s in scores]
    hits = [metrics.hit_rate(labels, s, judged.request, HIT_AT) for s in scores]
    ndcg = [metrics.ndcg(labels, s, judged.request, NDCG_AT) for s in scores]
    ranked = np.isfinite(ndcg[0])
    return {
        "auc": bootstrap.WeightedAUC(labels, scores, judged.user),
        "gauc": bootstrap.grouped(grouped, unit_of_group, units),
        "uauc": bootstrap.user_auc(labels, scores, judged.user, judged.day),
        "qauc": bootstrap.grouped(grouped, unit_of_group, units, by_impressions=False),
        f"hr@{HIT_AT}": bootstrap.mean_of([h.hit for h in hits], hits[0].counted, unit_of_request, units),
        f"ndcg@{NDCG_AT}": bootstrap.mean_of(ndcg, ranked, unit_of_request, units),
    }


def _slice_row(judged: Judged, part: Slice, task: str) -> dict[str, Any]:
    labels = judged.labels[task][part.rows]
    values = {model: _finite(metrics.auc(labels, scores[task][part.rows])) for model, scores in judged.scores.items()}
    return {
        "by": part.by,
        "slice": part.name,
        "measure": f"{task}.auc",
        "rows": len(labels),
        "positives": int(labels.sum()),
        "candidate": values["candidate"],
        "champion": values.get("champion"),
        "difference": None,
    }


def _difference(values: Floats, confidence: float) -> dict[str, float] | None:
    found = bootstrap.interval(values[:, 0] - values[:, 1], confidence)
    parts = {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "standard_error": found.standard_error,
        "p_not_better": found.p_not_positive,
    }
    return parts if all(math.isfinite(part) for part in parts.values()) else None


def _owner(inner: Codes, outer: Codes) -> Codes:
    """Which outer code each inner code lies in, (inner codes,)."""
    owner = np.zeros(int(inner.max(initial=-1)) + 1, np.int64)
    owner[inner] = outer
    return owner


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _why(labels: NDArray, task: str) -> str:
    positives = int(labels.sum())
    if not len(labels):
        return "there are no rows"
    return f"{positives} of {len(labels)} rows are positive for {task}, and no group of them defines it"
