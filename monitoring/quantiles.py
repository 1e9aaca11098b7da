"""Quantiles of observations that come in clusters: many requests a user, so requests are not independent.

With p̂(x) the share of observations ≤ x, r_u = Σ_{i of user u} (1[x_i ≤ Q̂] − q) and U users,

    Var p̂(Q̂) = U / (U − 1) · Σ_u r_u² / n²,

and the interval of the quantile is the interval of its probability read off the order statistics (Woodruff 1952), so
no density is estimated. Two arms are compared on the log scale by combining the one-sided distances of both intervals
(MOVER, Zou and Donner 2008). An interval that takes requests as independent rejects far too often in an A/A.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

MIN_BEYOND = 10  # observations on the far side of a quantile below which its share is not nearly normal


@dataclass(frozen=True)
class Quantile:
    """A quantile with its clustered interval; `lower` and `upper` are None where the sample is too small for one."""

    estimate: float
    lower: float | None
    upper: float | None
    beyond: int  # observations above the estimate
    count: int
    users: int


@dataclass(frozen=True)
class QuantileLift:
    """Relative change of a quantile, treatment over control, with interval, p-value and log-scale variance."""

    lift: float
    lower: float
    upper: float
    p: float
    log_ratio: float
    log_variance: float


def clustered_quantile(values: np.ndarray, users: np.ndarray, q: float, alpha: float) -> Quantile:
    """Quantile of `values` (n,) whose clusters are `users` (n,), with a 1 − alpha interval; n must be positive."""
    assert len(values) == len(users) > 0
    ordered = np.sort(values)
    n = len(ordered)
    estimate = float(ordered[_rank(n, q)])
    _, cluster = np.unique(users, return_inverse=True)
    residual = np.bincount(cluster, weights=(values <= estimate) - q)  # (U,)
    clusters = len(residual)
    lower = upper = None
    beyond = int((values > estimate).sum())
    if clusters > 1 and beyond >= MIN_BEYOND:
        deviation = math.sqrt(clusters / (clusters - 1) * float(residual @ residual)) / n
        half = float(norm.ppf(1 - alpha / 2)) * deviation
        if q - half > 0 and q + half < 1:
            lower, upper = float(ordered[_rank(n, q - half)]), float(ordered[_rank(n, q + half)])
    return Quantile(estimate, lower, upper, beyond, n, clusters)


def compare_quantiles(control: Quantile, treatment: Quantile, alpha: float) -> QuantileLift | None:
    """Lift of a positive quantile between two arms, each with its 1 − alpha interval; None where one has none."""
    bounds = [control.lower, control.upper, treatment.lower, treatment.upper]
    if any(bound is None or bound <= 0 for bound in bounds):
        return None
    c_lower, c_upper, t_lower, t_upper = (math.log(bound) for bound in bounds if bound is not None)
    c, t = math.log(control.estimate), math.log(treatment.estimate)
    difference = t - c
    down = math.hypot(t - t_lower, c_upper - c)
    up = math.hypot(t_upper - t, c - c_lower)
    z = float(norm.ppf(1 - alpha / 2))
    towards_null = (down if difference > 0 else up) / z  # the side of the interval that faces no difference
    if min(down, up) == 0:
        return None
    return QuantileLift(
        lift=math.expm1(difference),
        lower=math.expm1(difference - down),
        upper=math.expm1(difference + up),
        p=float(2 * norm.sf(abs(difference) / towards_null)),
        log_ratio=difference,
        log_variance=(max(down, up) / z) ** 2,
    )


def _rank(n: int, q: float) -> int:
    return min(max(math.ceil(n * q) - 1, 0), n - 1)
