"""What a ranking would have earned, from logs whose order was random: the item-position estimator.

Where the n shown items were put into uniformly random order, every item had every position with probability 1/n. If
a click depends on the item and its position alone, then for a policy π that puts item π(p) at position p

    V̂(π) = 1/R Σ_r Σ_{p ≤ k} n_r · 1[π_r(p) was logged at p] · click_r(p)

is an unbiased estimate of π's clicks in the top k a request (S. Li et al., Offline Evaluation of Ranking Policies
with Click Models, KDD 2018, item-position model). The self-normalised form divides by the weights' mean in place of
their expectation, min(n, k), and has the smaller variance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

ASSUMPTIONS = (
    "the flagged requests showed their items in uniformly random order, whoever asked and whatever the items",
    "a click depends on the item and its position only, not on the other items shown",
    "the policy is judged on ordering the items that were shown, not on choosing others",
)


@dataclass(frozen=True)
class Estimate:
    """Clicks in the top k a request."""

    requests: int
    k: int
    ips: float
    snips: float
    low: float  # 95 % interval of snips, by the delta method
    high: float
    logged: float  # what the random order itself earned
    matches: int  # positions up to k where policy and log agree: the support of the estimate


def item_position_estimate(
    offsets: NDArray[np.int64], position: ArrayLike, rank: ArrayLike, click: ArrayLike, k: int = 5
) -> Estimate | None:
    """Estimate a policy's clicks in the top k from R requests with N shown items.

    Args:
        offsets: (R+1,) into the items.
        position: (N,) where each item was logged; a request counts if its positions are 1 … n, each once.
        rank: (N,) where the policy puts it, 1-based.
        click: (N,) 0 or 1.
        k: positions that count.

    Returns:
        None where fewer than two requests count, or policy and log never agree: there is no support.
    """
    position, rank, click = np.asarray(position), np.asarray(rank), np.asarray(click, np.float64)
    n = np.diff(offsets)
    request = np.repeat(np.arange(len(n)), n)
    order = np.lexsort((position, request))
    whole = np.ones(len(n), bool)
    np.logical_and.at(whole, request, position[order] == np.arange(len(request)) - offsets[:-1][request] + 1)

    def total(values: NDArray) -> NDArray[np.float64]:
        return np.bincount(request, weights=values, minlength=len(n))[whole].astype(np.float64)

    top = position <= k
    agree = top & (position == rank)
    weight, gain = total(agree * n[request]), total(agree * n[request] * click)
    if len(weight) < 2 or not weight.any():
        return None
    expected = float(np.minimum(n, k)[whole].mean())
    ratio = gain.sum() / weight.sum()
    deviation = expected * (gain - ratio * weight) / weight.mean()
    error = float(deviation.std(ddof=1) / np.sqrt(len(deviation)))
    snips = float(expected * ratio)
    return Estimate(
        requests=len(weight),
        k=k,
        ips=float(gain.mean()),
        snips=snips,
        low=snips - 1.96 * error,
        high=snips + 1.96 * error,
        logged=float(total(top * click).mean()),
        matches=int((agree & whole[request]).sum()),
    )
