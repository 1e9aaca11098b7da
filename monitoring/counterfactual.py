"""What another order would have earned, from requests whose order was drawn with known propensities: IPS, SNIPS, DR.

The log holds μ(a_p | a_1 … a_{p-1}), the probability that the item at position p was drawn given those above it
(`serving.exploration`). For a policy that answers the order b, the weight of the first p positions is

    w_p = Π_{j ≤ p} 1[a_j = b_j] / μ(a_j | a_1 … a_{j-1}),   E w_p = 1,

and, if a click depends on the items at and above its own position only (cascade), with r_p the click at p

    IPS    Σ_p mean(w_p r_p)
    SNIPS  Σ_p mean(w_p r_p) / mean(w_p)
    DR     Σ_p mean(w_p (r_p - q(a_p, p)) + w_{p-1} q(b_p, p)),   q any model of clicks fitted on other users.

Sources: Precup, Sutton and Singh (ICML 2000), per-decision importance sampling; Swaminathan and Joachims (NeurIPS
2015), self-normalising; Dudík, Langford and Li (ICML 2011) and Kiyohara et al. (WSDM 2022), doubly robust, cascade.
Here the policy is a fixed order and q has no look-ahead. Intervals are clustered by user.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

MIN_EFFECTIVE = 50.0  # effective requests below which an interval by the normal distribution is not believed
SIGMAS = 4.0  # by which the mean weight may miss 1 before the propensities are taken for wrong
PRIOR = 5.0  # expected clicks that an item must have had before its own rate counts as much as its position's
FOLDS = 2


@dataclass(frozen=True)
class Draws:
    """Requests (n) by the first positions (k) of what was shown and of the order to be judged."""

    user: NDArray[np.int64]  # (n,) clusters
    shown: NDArray[np.int64]  # (n, k) item numbers
    wanted: NDArray[np.int64]  # (n, k) those of the other order
    propensity: NDArray[np.float64]  # (n, k) in (0, 1]
    click: NDArray[np.float64]  # (n, k)


def weights(draws: Draws, clip: float) -> tuple[NDArray[np.float64], float]:
    """Weights w_p (n, k), none above `clip`, and the share of positive ones that were cut."""
    raw = np.cumprod((draws.shown == draws.wanted) / draws.propensity, axis=1)
    cut = (raw > clip).sum() / max((raw > 0).sum(), 1)
    return np.minimum(raw, clip), float(cut)


def estimate(draws: Draws, alpha: float = 0.05, clip: float = np.inf) -> dict[str, Any]:
    """Clicks in the first k positions a request, under the other order and as logged.

    Args:
        draws: at least two users.
        alpha: intervals are 1 - alpha.
        clip: greatest weight; below infinity the estimates are biased towards less, which the result says.

    Returns:
        `logged`, `ips`, `snips` and `dr`, each {value, interval, difference, difference_interval} against the log;
        `effective` requests and `mean_weight` by position, `clipped` share; `withheld` is None or says why no
        estimate is given. Every number is finite or None.
    """
    n, k = draws.click.shape
    w, clipped = weights(draws, clip)
    total, squares = w.sum(axis=0), (w**2).sum(axis=0)
    effective = np.divide(total**2, squares, out=np.zeros(k), where=squares > 0)
    logged = draws.click.sum(axis=1)
    found: dict[str, Any] = {
        "requests": n,
        "users": len(np.unique(draws.user)),
        "positions": k,
        "effective": effective.tolist(),
        "mean_weight": (total / n).tolist(),
        "clip": clip if np.isfinite(clip) else None,
        "clipped": clipped,
        "logged": _with_interval(draws.user, logged, logged.mean(), None, alpha),
        **dict.fromkeys(("ips", "snips", "dr")),
    }
    if reason := _refusal(draws.user, w, effective, clipped):
        return found | {"withheld": reason}
    earned = w * draws.click
    rate = earned.mean(axis=0) / w.mean(axis=0)
    fitted_shown, fitted_wanted = _cross_fitted(draws)
    before = np.hstack([np.ones((n, 1)), w[:, :-1]])
    robust = (w * (draws.click - fitted_shown) + before * fitted_wanted).sum(axis=1)
    parts = {  # by request, each with the estimate as its mean
        "ips": earned.sum(axis=1),
        "snips": rate.sum() + (w * (draws.click - rate) / w.mean(axis=0)).sum(axis=1),
        "dr": robust,
    }
    results = {name: _with_interval(draws.user, values, values.mean(), logged, alpha) for name, values in parts.items()}
    return found | results | {"withheld": None}


def _refusal(
    user: NDArray[np.int64], w: NDArray[np.float64], effective: NDArray[np.float64], clipped: float
) -> str | None:
    """Why the weights allow no estimate."""
    if effective[-1] < MIN_EFFECTIVE:
        return (
            f"too little support: the {w.shape[1]} positions agree in so few requests that they count as "
            f"{effective[-1]:.0f}, {MIN_EFFECTIVE:.0f} are needed; judge fewer positions or log more exploration"
        )
    for p in range(w.shape[1]) if not clipped else ():
        mean, error = w[:, p].mean(), _error(user, w[:, p])
        if abs(mean - 1) > SIGMAS * error + 1e-9:
            return (
                f"the weights of the first {p + 1} positions average {mean:.3f} ± {error:.3f} where 1 is expected: the "
                "logged propensities are not those of this log, or the orders do not hold all candidates"
            )
    return None


def _cross_fitted(draws: Draws) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """q at the shown and at the wanted item, (n, k): the position's rate times the item's, from the other users."""
    items, place = np.unique(np.concatenate([draws.shown.ravel(), draws.wanted.ravel()]), return_inverse=True)
    shown, wanted = place[: draws.shown.size].reshape(draws.shown.shape), place[draws.shown.size :]
    wanted = wanted.reshape(draws.wanted.shape)
    fold = np.unique(draws.user, return_inverse=True)[1] % FOLDS
    fitted = np.zeros((2, *draws.click.shape))
    for n in range(FOLDS):
        there, here = fold != n, fold == n
        rate = draws.click[there].mean(axis=0) if there.any() else np.zeros(draws.click.shape[1])  # (k,)
        clicks = np.bincount(shown[there].ravel(), weights=draws.click[there].ravel(), minlength=len(items))
        due = np.bincount(
            shown[there].ravel(), weights=np.broadcast_to(rate, shown[there].shape).ravel(), minlength=len(items)
        )
        item = (clicks + PRIOR) / (due + PRIOR)
        fitted[0, here], fitted[1, here] = rate * item[shown[here]], rate * item[wanted[here]]
    return fitted[0], fitted[1]


def _with_interval(
    user: NDArray[np.int64],
    values: NDArray[np.float64],
    estimated: float,
    logged: NDArray[np.float64] | None,
    alpha: float,
) -> dict[str, Any]:
    z = float(norm.ppf(1 - alpha / 2))
    half = z * _error(user, values)
    found: dict[str, Any] = {"value": float(estimated), "interval": [float(estimated - half), float(estimated + half)]}
    if logged is not None:
        difference, width = float((values - logged).mean()), z * _error(user, values - logged)
        found |= {"difference": difference, "difference_interval": [difference - width, difference + width]}
    return found


def _error(user: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """Standard error of a mean over requests that come in users."""
    cluster = np.unique(user, return_inverse=True)[1]
    sums = np.bincount(cluster, weights=values - values.mean())
    users = len(sums)
    return float(np.sqrt(users / (users - 1) * (sums**2).sum()) / len(values))
