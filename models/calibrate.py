"""Strictly monotone Platt scaling of a logit, p = σ(a z + b) with a > 0, so that a ranking survives calibration.

ES3 shifts the base rate of the training rows; (a, b) are fitted on the target domain's exposed validation rows, where
the model will be read (J. Platt, Probabilistic outputs for support vector machines, 1999; the two smoothed targets
are his and keep the fit finite when the classes are separable).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.cells import check_labels, check_scores
from uniscale.errors import DataError

LEAST_SLOPE = 0.01  # a model whose logits are no better than chance wants a <= 0, which would reverse or merge ranks
LEAST_CLASS = 10  # with fewer rows of a class the slope is noise: keep a = 1 and move the base rate only
STEPS = 100


@dataclass(frozen=True)
class Calibration:
    """p = σ(a z + b), and the rows it was fitted on."""

    a: float
    b: float
    rows: int = 0
    positives: int = 0

    def __call__(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities of logits of any shape."""
        return sigmoid(self.a * np.asarray(logits, np.float64) + self.b)


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """σ(z) = (1 + tanh(z / 2)) / 2, which cannot overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def fit_platt(labels: ArrayLike, logits: ArrayLike) -> Calibration:
    """Maximise the smoothed likelihood over a >= LEAST_SLOPE and b by Newton steps. labels 0/1, logits: (n,).

    The problem is convex, so where the free optimum has a slope below LEAST_SLOPE the constrained one lies on that
    border, and b alone is fitted there.

    Raises:
        DataError: no rows, a label other than 0 and 1, a logit that is NaN or infinite.
    """
    y = check_labels(labels)
    z = check_scores(logits, len(y)).astype(np.float64)
    if not len(y):
        raise DataError("no validation rows to calibrate on: samples.valid_days must hold exposed target-domain rows")
    if not np.isfinite(z).all():
        raise DataError(f"{int((~np.isfinite(z)).sum())} of {len(z)} logits are infinite: the model diverged")
    positives = int(y.sum())
    negatives = len(y) - positives
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    rate = target.mean()
    centre = float(z.mean())
    start = float(np.log(rate / (1 - rate)))
    if min(positives, negatives) < LEAST_CLASS:
        a, b = _newton(z, target, 1.0, start - centre, slope=False)
    else:
        a, b = _newton(z, target, 1.0, start - centre, slope=True)
        if a < LEAST_SLOPE:
            a, b = _newton(z, target, LEAST_SLOPE, start - LEAST_SLOPE * centre, slope=False)
    return Calibration(a, b, rows=len(y), positives=positives)


def _newton(z: NDArray, target: NDArray, a: float, b: float, slope: bool) -> tuple[float, float]:
    """Damped Newton on the cross-entropy of σ(a z + b); `slope` False holds a."""
    loss = _cross_entropy(z, target, a, b)
    for _ in range(STEPS):
        p = sigmoid(a * z + b)
        error, curvature = p - target, p * (1 - p) + 1e-12
        if slope:
            gradient = np.array([np.mean(error * z), np.mean(error)])
            h_ab = np.mean(curvature * z)
            hessian = np.array([[np.mean(curvature * z * z), h_ab], [h_ab, np.mean(curvature)]])
            step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        else:
            gradient = np.array([0.0, np.mean(error)])
            step = np.array([0.0, gradient[1] / np.mean(curvature)])
        if np.abs(gradient).max() < 1e-10:
            break
        size, moved = 1.0, False
        while not moved and size > 1e-8:  # halve until the loss falls: far from the optimum a full step may overshoot
            trial = _cross_entropy(z, target, a - size * step[0], b - size * step[1])
            moved = trial < loss
            size = size if moved else size / 2
        if not moved:
            break
        a, b, loss = a - size * float(step[0]), b - size * float(step[1]), trial
    return float(a), float(b)


def _cross_entropy(z: NDArray, target: NDArray, a: float, b: float) -> float:
    s = a * z + b
    return float(np.mean(np.logaddexp(0.0, s) - target * s))
