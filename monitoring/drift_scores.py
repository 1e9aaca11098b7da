"""Scores of drift between two windows, from counts alone, so that they cost one pass over any number of rows.

With p and q the bucket shares of the reference and of the current window,

    PSI = Σ_b (q_b − p_b) · ln(q_b / p_b)                       (numbers: buckets are quantiles of the reference)
    JS  = √( ½ Σ_b p_b log₂(p_b / m_b) + ½ Σ_b q_b log₂(q_b / m_b) ),   m = (p + q) / 2     (ids: the top ids)

Both grow with the number of buckets even when nothing changed: of n and m rows in B buckets the expected PSI is about
(B − 1)(1/n + 1/m), and JS² about (B − 1)(1/n + 1/m) / (8 ln 2); both follow χ² with B − 1 degrees of freedom in that
scale. A score counts only when it exceeds its threshold with the noise taken off, and is beyond chance (p < 0.001).
Quantile bins see a price × 1.5 that equal-width bins hide in a long tail.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

QUANTILE_BINS = 10
CHANCE = 0.001  # of a score this large when nothing changed


@dataclass(frozen=True)
class Buckets:
    """How the values of one column fall into buckets: `edges` for numbers, `names` for ids (0 is missing)."""

    edges: np.ndarray | None = None  # (B − 1,) increasing; bucket b holds edges[b − 1] < x ≤ edges[b]
    names: np.ndarray | None = None  # (K,) ids, the most frequent first
    order: np.ndarray | None = None  # argsort of names

    @classmethod
    def of_numbers(cls, reference: np.ndarray) -> "Buckets":
        """Quantile bins of a reference sample; ties merge, and both outer bins lie outside of what was seen."""
        seen = np.sort(reference[np.isfinite(reference)].astype(np.float64))
        if not len(seen):
            return cls(edges=np.zeros(1))
        ranks = -(-len(seen) * np.arange(QUANTILE_BINS + 1) // QUANTILE_BINS) - 1  # ceil in whole numbers
        inner = seen[np.maximum(ranks, 0)]
        below = np.nextafter(inner[0], -np.inf)
        return cls(edges=np.unique(np.concatenate([[below], inner])))

    @classmethod
    def of_ids(cls, reference: np.ndarray, current: np.ndarray, top: int) -> "Buckets":
        """The `top` ids of both windows together: names chosen on one window alone would favour it."""
        both = np.concatenate([reference, current])
        values, counts = np.unique(both[both != 0], return_counts=True)
        names = values[np.argsort(-counts, kind="stable")[:top]]
        return cls(names=names, order=np.argsort(names, kind="stable"))

    @property
    def count(self) -> int:
        """Number of buckets, missing left out."""
        return len(self.edges) + 1 if self.edges is not None else len(self.names if self.names is not None else ()) + 1

    def index(self, values: np.ndarray) -> np.ndarray:
        """Bucket of each value, (n,); −1 for missing; for ids the last bucket is every other id."""
        if self.edges is not None:
            return np.where(np.isfinite(values), np.searchsorted(self.edges, values, side="left"), -1)
        assert self.names is not None and self.order is not None
        if not len(self.names):
            return np.where(values == 0, -1, 0)
        place = np.minimum(np.searchsorted(self.names, values, sorter=self.order), len(self.names) - 1)
        rank = self.order[place]
        return np.where(values == 0, -1, np.where(self.names[rank] == values, rank, len(self.names)))

    def counts(self, values: np.ndarray) -> np.ndarray:
        """Rows a bucket, (count + 1,): missing first."""
        return np.bincount(self.index(values) + 1, minlength=self.count + 1)


@dataclass(frozen=True)
class Score:
    """Drift of one column: PSI and JS as measured, their noise, and rows and missing share of both windows.

    `beyond_chance` says that no sampling of one distribution into these buckets gives such scores but once in 1/CHANCE.
    """

    psi: float
    psi_noise: float
    js: float
    js_noise: float
    beyond_chance: bool
    reference_rows: int
    current_rows: int
    reference_missing: float
    current_missing: float


def score(reference: np.ndarray, current: np.ndarray) -> Score | None:
    """Score of two count vectors with the missing bucket first; None where a window has no row."""
    n, m = int(reference.sum()), int(current.sum())
    if n == 0 or m == 0:
        return None
    p, q, present = reference[1:], current[1:], (int(reference[1:].sum()), int(current[1:].sum()))
    missing = (1 - present[0] / n, 1 - present[1] / m)
    if min(present) == 0:
        return Score(0.0, 0.0, 0.0, 0.0, False, n, m, *missing)
    used = (p + q) > 0
    p, q = p[used], q[used]
    spread = (len(p) - 1) * (1 / present[0] + 1 / present[1])
    smooth_p, smooth_q = (p + 0.5) / (p + 0.5).sum(), (q + 0.5) / (q + 0.5).sum()  # an empty bucket has a logarithm
    psi = float(((smooth_q - smooth_p) * np.log(smooth_q / smooth_p)).sum())
    apart = divergence(p / present[0], q / present[1])
    scale = 1 / present[0] + 1 / present[1]
    limit = float(chi2.isf(CHANCE, len(p) - 1)) if len(p) > 1 else math.inf
    return Score(
        psi=psi,
        psi_noise=spread,
        js=math.sqrt(apart),
        js_noise=math.sqrt(spread / (8 * math.log(2))),
        beyond_chance=min(psi, 8 * math.log(2) * apart) > limit * scale,
        reference_rows=n,
        current_rows=m,
        reference_missing=missing[0],
        current_missing=missing[1],
    )


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """JS² of two vectors of shares, (B,) each."""
    middle = (p + q) / 2
    return max(0.5 * _relative_entropy(p, middle) + 0.5 * _relative_entropy(q, middle), 0.0)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    positive = p > 0
    return float((p[positive] * np.log2(p[positive] / q[positive])).sum())
