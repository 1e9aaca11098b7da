"""Ranking and calibration metrics, exact and vectorised: one sort a metric, no loop over groups.

Every ranking metric sees a ranking only through its *cells*, the runs of equal score within a group: what happens
inside a tie cannot matter, so ties count as half (AUC) or take their expectation over random orders (hit rate, NDCG).
UniScale 4.1.3 names AUC, GAUC by (user, query) and HR@5; the definitions it leaves open are in the docstrings here.
A metric that is undefined on its rows (one class only, no group left) is NaN.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.cells import (
    Floats,
    check_groups,
    check_labels,
    check_scores,
    group_codes,
    rank_cells,
    run_starts,
    sort_keys,
    within_group_cumsum,
)
from uniscale.errors import DataError


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties half. labels, scores: (n,)."""
    groups = np.zeros(len(np.asarray(labels)), np.int64)
    return float(grouped_auc(labels, scores, groups).auc[0]) if len(groups) else float("nan")


@dataclass(frozen=True)
class GroupedAUC:
    """Counts of every group, from which GAUC, QAUC and their resamples follow; arrays are (G,)."""

    positives: Floats
    negatives: Floats
    wins: Floats  # positive-negative pairs in the right order, ties half (the Mann-Whitney U)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Groups with both classes; the others have no AUC and are left out."""
        return (self.positives > 0) & (self.negatives > 0)

    @property
    def auc(self) -> Floats:
        """AUC of each group, NaN where it has one class only."""
        pairs = self.positives * self.negatives
        return np.divide(self.wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    @property
    def impressions(self) -> Floats:
        """Rows of each group."""
        return self.positives + self.negatives

    @property
    def valid_share(self) -> float:
        """Share of the groups that enter the mean; 1 minus this is left out."""
        groups = self.impressions > 0
        return float(self.valid.sum() / groups.sum()) if groups.any() else float("nan")

    @property
    def gauc(self) -> float:
        """Σ nᵢ AUCᵢ / Σ nᵢ over valid groups, nᵢ the impressions."""
        return _mean(self.auc[self.valid], self.impressions[self.valid])

    @property
    def qauc(self) -> float:
        """Unweighted mean of AUCᵢ over valid groups."""
        return _mean(self.auc[self.valid])


def grouped_auc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> GroupedAUC:
    """AUC within every group at once. labels 0/1, scores, groups (codes of `group_codes`): (n,).

    Raises:
        DataError: lengths differ, a label other than 0 and 1, a NaN score, a negative group.
    """
    cells = rank_cells(labels, scores, groups)
    negatives = cells.size - cells.positives
    lower = within_group_cumsum(negatives, cells) - negatives  # negatives of the group that score less

    def total(values: NDArray) -> Floats:
        return np.bincount(cells.group, weights=values, minlength=cells.groups).astype(np.float64)

    return GroupedAUC(
        positives=total(cells.positives),
        negatives=total(negatives),
        wins=total(cells.positives * (lower + negatives / 2)),
    )


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float:
    """Group AUC weighted by impressions; groups by (user, query) for UniScale, by user for EST."""
    return grouped_auc(labels, scores, groups).gauc


def qauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float:
    """Unweighted mean of the AUC of the groups; groups by (user, query)."""
    return grouped_auc(labels, scores, groups).qauc


def uauc(labels: ArrayLike, scores: ArrayLike, users: ArrayLike, days: ArrayLike) -> float:
    """GAUC by user within each day, macro-averaged over the days that have one."""
    user, day = group_codes(users), group_codes(days)
    found = grouped_auc(labels, scores, day * (user.max(initial=0) + 1) + user)
    of_day = np.arange(len(found.wins)) // (user.max(initial=0) + 1)
    weight = np.where(found.valid, found.impressions, 0.0)
    totals = np.bincount(of_day, weights=weight)
    sums = np.bincount(of_day, weights=weight * np.nan_to_num(found.auc))
    return _mean(sums[totals > 0] / totals[totals > 0])


@dataclass(frozen=True)
class HitRate:
    """Per-request hit probabilities and what was left out; arrays are (G,)."""

    hit: Floats  # probability that the top k holds a positive (0 or 1 without ties at the border)
    counted: NDArray[np.bool_]  # requests with a positive and more than k candidates
    too_short: int  # requests with a positive and at most k candidates: a hit by construction, so left out

    @property
    def value(self) -> float:
        """Share of the counted requests with a positive in their top k."""
        return _mean(self.hit[self.counted])


def hit_rate(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int = 5) -> HitRate:
    """HR@k: of the requests that have a positive and more than k candidates, the share with one in the top k.

    When equal scores straddle rank k, the expectation over random orders of the tie is taken: with s places left for
    t tied candidates of which p are positive, the chance of a hit is 1 - C(t - p, s) / C(t, s).
    """
    cells = rank_cells(labels, scores, requests)

    def total(values: NDArray) -> Floats:
        return np.bincount(cells.group, weights=values, minlength=cells.groups).astype(np.float64)

    size, positive = total(cells.size), total(cells.positives) > 0
    above = size[cells.group] - within_group_cumsum(cells.size, cells)  # rows of the request that score more
    places = np.clip(k - above, 0, cells.size)  # of the top k, those this cell fills
    log_miss = np.zeros(len(places))
    with np.errstate(divide="ignore"):
        for taken in range(k):  # C(t - p, s) / C(t, s) as a product over the s places
            left = np.maximum(cells.size - taken, 1)
            chance = np.clip(left - cells.positives, 0, None) / left
            log_miss += np.where(taken < places, np.log(chance), 0.0)
    return HitRate(
        hit=-np.expm1(total(log_miss)),
        counted=positive & (size > k),
        too_short=int((positive & (size <= k)).sum()),
    )


def ndcg(gains: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int | None = None) -> Floats:
    """NDCG@k of every request, (G,): discount 1 / log2(rank + 1), gains as given; NaN where all gains are 0.

    Tied scores share the mean discount of the ranks they take. `k` None takes the whole list. The metric of a test
    set is `numpy.nanmean` of the answer.
    """
    gain = np.asarray(gains, np.float64)
    codes = check_groups(requests, len(gain))
    keys = sort_keys(check_scores(scores, len(gain)), codes)
    length = np.bincount(codes)
    rank = np.arange(int(length.max(initial=0)))
    discount = np.where(rank < (len(rank) if k is None else k), 1.0 / np.log2(rank + 2.0), 0.0)
    cumulative = np.append(0.0, np.cumsum(discount))

    order = np.argsort(keys)
    starts = run_starts(keys[order])
    size = np.diff(np.append(starts, len(order)))
    above = np.cumsum(length)[codes[order[starts]]] - starts - size  # the sort is ascending
    cell_gain = np.add.reduceat(gain[order], starts) if len(starts) else np.zeros(0)
    share = (cumulative[above + size] - cumulative[above]) / size
    reached = np.bincount(codes[order[starts]], weights=cell_gain * share, minlength=len(length))

    best = np.lexsort((-gain, codes))
    place = np.arange(len(best)) - (np.cumsum(length) - length)[codes[best]]
    ideal = np.bincount(codes[best], weights=gain[best] * discount[place], minlength=len(length))
    return np.divide(reached, ideal, out=np.full(len(length), np.nan), where=ideal > 0)


def expected_auc(probabilities: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """AUC expected of `scores` when every row is clicked independently with its true probability. All (n,).

    Σ_{i≠j} w_i w_j p_i (1 - p_j) [s_i > s_j] / Σ_{i≠j} w_i w_j p_i (1 - p_j), ties half. `weights` (inverse inclusion
    probabilities) let a sample of rows stand for all of them.
    """
    p = np.asarray(probabilities, np.float64)
    s = check_scores(scores, len(p))
    w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(s)
    starts = run_starts(s[order])
    if not len(starts):
        return float("nan")
    clicked = np.add.reduceat((w * p)[order], starts)
    skipped = np.add.reduceat((w * (1 - p))[order], starts)
    own = float(np.sum(w * w * p * (1 - p)))  # a row is no pair with itself
    wins = float(np.sum(clicked * (np.cumsum(skipped) - skipped / 2))) - own / 2
    pairs = float(clicked.sum() * skipped.sum()) - own
    return wins / pairs if pairs > 0 else float("nan")


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of -log P(label); probabilities are kept 1e-12 away from 0 and 1."""
    return _mean(row_log_loss(labels, probabilities))


def row_log_loss(labels: ArrayLike, probabilities: ArrayLike) -> Floats:
    """-log P(label) of every row, (n,)."""
    y, p = _labels_and_probabilities(labels, probabilities)
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -np.where(y == 1, np.log(p), np.log1p(-p))


def calibration_ratio(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Predicted over observed positives; 1 is calibrated in the large."""
    y, p = _labels_and_probabilities(labels, probabilities)
    return float(p.sum() / y.sum()) if y.any() else float("nan")


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> float:
    """ECE over bins of equal mass: Σ_b n_b / n · |mean label - mean probability|.

    Equal mass, because at the base rates of search nearly every row would fall into the lowest of equal-width bins.
    Equal probabilities never part: a bin's border moves to the end of the tie.
    """
    y, p = _labels_and_probabilities(labels, probabilities)
    if not len(p):
        return float("nan")
    order = np.argsort(p)
    starts = run_starts(p[order])
    asked = np.linspace(0, len(p), bins + 1)[:-1]
    borders = np.unique(starts[np.searchsorted(starts, asked, side="right") - 1])
    gap = np.add.reduceat((y - p)[order], borders)
    return float(np.abs(gap).sum() / len(p))


def _mean(values: NDArray, weights: NDArray | None = None) -> float:
    return float(np.average(values, weights=weights)) if len(values) else float("nan")


def _labels_and_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray, Floats]:
    y = check_labels(labels)
    p = check_scores(probabilities, len(y)).astype(np.float64)
    if len(p) and (p.min() < 0 or p.max() > 1):
        raise DataError(f"probabilities must be in 0..1, got {p.min()}..{p.max()}: pass scores through the sigmoid")
    return y, p
