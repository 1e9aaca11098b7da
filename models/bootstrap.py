"""Paired bootstrap by unit: how sure is the difference of two models that scored the same rows?

Units (users, for they are what is independent) are drawn with replacement; a resample is a vector of multinomial
weights over units, the same for both models and all measures, so every difference is paired. A measure answers a
block of weights (B, U) with the values of its models (B, M). Measures that are ratios of sums over units (GAUC, QAUC,
UAUC, HR@5, NDCG, log-loss) are matrix products; plain AUC, whose pairs cross units, is recomputed exactly from rows
sorted once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.cells import Codes, Floats, check_labels, check_scores
from models.metrics import GroupedAUC, grouped_auc
from uniscale.errors import DataError
from uniscale.progress import Progress

BLOCK = 1 << 22  # weights held at a time
MOST_UNDEFINED = 0.05  # a measure undefined on more resamples than this share has no interval

Measure = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; NaN bounds where too many resamples were undefined."""

    value: float
    low: float
    high: float
    standard_error: float
    p_not_positive: float  # share of resamples at or below zero, (1 + count) / (1 + resamples)


class Ratio:
    """Σ_u w_u numerator_u / Σ_u w_u denominator_u, averaged over strata (the days of UAUC) that have a denominator.

    numerator: (U, S, M), denominator: (U, S); strata S may be left out of both shapes.
    """

    def __init__(self, numerator: Floats, denominator: Floats):
        if numerator.ndim == 2:
            numerator, denominator = numerator[:, None, :], denominator[:, None]
        self.numerator, self.denominator = numerator, denominator

    def __call__(self, weights: Floats) -> Floats:
        """Values under weights (B, U): (B, M)."""
        units, strata, models = self.numerator.shape
        above = (weights @ self.numerator.reshape(units, strata * models)).reshape(-1, strata, models)
        below = (weights @ self.denominator)[:, :, None]
        ratios = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
        counted = (below > 0).sum(1)
        total = np.where(below > 0, ratios, 0.0).sum(1)
        return np.divide(total, counted, out=np.full(total.shape, np.nan), where=counted > 0)


class WeightedAUC:
    """AUC of each model with every row weighted by its unit, exact with ties.

    labels 0/1: (n,); scores: one (n,) a model; units: codes (n,).
    """

    def __init__(self, labels: ArrayLike, scores: list[NDArray], units: Codes):
        y = check_labels(labels)
        self.models = []
        for given in scores:
            s = check_scores(given, len(y))
            negative = np.flatnonzero(y == 0)
            negative = negative[np.argsort(s[negative], kind="stable")]
            positive = np.flatnonzero(y == 1)
            lower = np.searchsorted(s[negative], s[positive], side="left")  # negatives that score less
            upper = np.searchsorted(s[negative], s[positive], side="right")  # or as much
            self.models.append((units[negative], units[positive], lower, upper))

    def __call__(self, weights: Floats) -> Floats:
        """Values under weights (B, U): (B, M)."""
        return np.array([[self._one(w, *model) for model in self.models] for w in weights])

    @staticmethod
    def _one(w: Floats, negative: Codes, positive: Codes, lower: Codes, upper: Codes) -> float:
        below = np.zeros(len(negative) + 1)
        np.cumsum(w[negative], out=below[1:])
        of_positive = w[positive]
        pairs = of_positive.sum() * below[-1]
        return float(of_positive @ (below[lower] + below[upper]) / 2 / pairs) if pairs > 0 else float("nan")


def grouped(models: list[GroupedAUC], unit_of_group: Codes, units: int, by_impressions: bool = True) -> Ratio:
    """GAUC (or QAUC, with `by_impressions` False) as a measure. unit_of_group: (G,), the unit each group lies in."""
    valid = models[0].valid
    weight = np.where(valid, models[0].impressions if by_impressions else 1.0, 0.0)
    columns = [np.bincount(unit_of_group, weights=weight * np.nan_to_num(m.auc), minlength=units) for m in models]
    return Ratio(
        np.stack(columns, axis=1), np.bincount(unit_of_group, weights=weight, minlength=units).astype(np.float64)
    )


def user_auc(labels: ArrayLike, scores: list[NDArray], users: Codes, days: Codes) -> Ratio:
    """UAUC as a measure whose units are the users: GAUC by user within each day, macro-averaged over days."""
    units, strata = int(users.max(initial=-1)) + 1, int(days.max(initial=-1)) + 1
    groups = users * strata + days
    models = [grouped_auc(labels, s, groups) for s in scores]

    def table(values: Floats) -> Floats:
        return np.append(values, np.zeros(units * strata - len(values))).reshape(units, strata)

    weight = table(np.where(models[0].valid, models[0].impressions, 0.0))
    return Ratio(np.stack([weight * table(np.nan_to_num(m.auc)) for m in models], axis=2), weight)


def mean_of(values: list[Floats], counted: NDArray[np.bool_], units: Codes, n_units: int) -> Ratio:
    """Mean over the counted entries (rows, requests) as a measure. values: one (k,) a model; counted, units: (k,)."""
    columns = [np.bincount(units[counted], weights=v[counted], minlength=n_units) for v in values]
    return Ratio(np.stack(columns, axis=1), np.bincount(units[counted], minlength=n_units).astype(np.float64))


def resample(
    measures: Mapping[str, Measure], units: int, resamples: int, seed: int, label: str = "bootstrap"
) -> dict[str, Floats]:
    """Values of every measure under the original weights (row 0) and under each resample: (1 + resamples, M) each.

    Raises:
        DataError: fewer than two units, which hold no information on their own variation.
    """
    if units < 2:
        raise DataError(f"a bootstrap over units needs at least 2, got {units}: evaluate on more users")
    rng = np.random.default_rng(seed)
    found = {name: [measure(np.ones((1, units)))] for name, measure in measures.items()}
    progress = Progress(label, resamples, "resamples")
    done = 0
    while done < resamples:
        block = min(max(BLOCK // units, 1), resamples - done, 50)
        drawn = rng.integers(0, units, size=(block, units)) + units * np.arange(block)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=block * units).reshape(block, units).astype(np.float64)
        for name, measure in measures.items():
            found[name].append(measure(weights))
        done += block
        progress.advance(block)
    progress.finish()
    return {name: np.concatenate(blocks) for name, blocks in found.items()}


def interval(values: Floats, confidence: float) -> Interval:
    """Two-sided percentile interval. values: (1 + resamples,), the first one being the estimate itself."""
    value, drawn = float(values[0]), values[1:]
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(defined) < (1 - MOST_UNDEFINED) * len(drawn):
        nan = float("nan")
        return Interval(value, nan, nan, nan, nan)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    p = (1 + int((defined <= 0).sum())) / (1 + len(defined))
    return Interval(value, float(low), float(high), float(defined.std(ddof=1)), p)
