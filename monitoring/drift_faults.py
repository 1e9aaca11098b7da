"""Names for drift: what must have happened to a column that its values look like this.

A score says that a column moved; the owner wants to know whether it was frozen, remapped, rescaled, no longer filled,
or moved by users. Each name rests on one observation that the others do not make.
"""

import math

import numpy as np

from monitoring.drift_scores import Buckets, divergence, score

FROZEN_SHARE = 0.99  # of one value, where the reference had variety
VARIED_SHARE = 0.9
REMAP_JS = 0.1  # of the sorted shares: the same frequencies under other names
REMAP_SHARE = 0.5  # of the JS by name, which sorting must take away
RESCALED_LOG = math.log(1.5)
EXPLAINED = 0.8  # share of the PSI that undoing the factor must take away


def name_fault(kind: str, reference: np.ndarray, current: np.ndarray, missing: tuple[float, float]) -> str | None:
    """What happened to a drifted column; None where nothing but a move of the distribution is seen.

    Args:
        kind: `number` or `id`.
        reference: sample of the earlier window, (n,); missing is NaN for numbers, 0 for ids.
        current: the same of the later window, (m,).
        missing: share of missing values in both windows.
    """
    before, now = (
        values[np.isfinite(values)] if kind == "number" else values[values != 0] for values in (reference, current)
    )
    if missing[1] > 0.5 > missing[0]:
        return f"no longer filled: missing in {missing[1]:.0%} of the rows"
    if not len(before) or not len(now):
        return None
    if _largest_share(now) >= FROZEN_SHARE and _largest_share(before) < VARIED_SHARE:
        return f"frozen: one value in {_largest_share(now):.0%} of the rows, {_largest_share(before):.0%} before"
    return _remapped(before, now) if kind == "id" else _rescaled(before, now)


def _largest_share(values: np.ndarray) -> float:
    return float(np.unique(values, return_counts=True)[1].max() / len(values))


def _remapped(before: np.ndarray, now: np.ndarray) -> str | None:
    """The same frequencies under other names; near-equal frequencies cannot be told from a new assortment."""
    old, new = (np.unique(values, return_counts=True) for values in (before, now))
    width = max(len(old[1]), len(new[1]))
    shapes = [np.pad(-np.sort(-counts), (0, width - len(counts))) / counts.sum() for _, counts in (old, new)]
    js = math.sqrt(divergence(*shapes))
    names, place = np.unique(np.concatenate([old[0], new[0]]), return_inverse=True)
    by_name = [
        np.bincount(where, counts, len(names)) / counts.sum()
        for where, (_, counts) in zip(np.split(place, [len(old[0])]), (old, new), strict=True)
    ]
    if js >= min(REMAP_JS, REMAP_SHARE * math.sqrt(divergence(*by_name))):
        return None
    return f"remapped: the same frequencies under other names (JS of the shape {js:.2f})"


def _rescaled(before: np.ndarray, now: np.ndarray) -> str | None:
    """All values times one factor."""
    if min(before.min(), now.min()) < 0 or min(np.median(before), np.median(now)) <= 0:
        return None
    factor = float(np.median(now) / np.median(before))
    if abs(math.log(factor)) < RESCALED_LOG:
        return None
    bucket = Buckets.of_numbers(before)
    moved, undone = (score(bucket.counts(before), bucket.counts(values)) for values in (now, now / factor))
    if moved is None or undone is None or undone.psi > (1 - EXPLAINED) * moved.psi:
        return None
    return f"rescaled: values times {factor:.3g}, a change of unit or currency"
