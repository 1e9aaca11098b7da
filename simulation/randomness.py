"""Random numbers keyed by what they decide, so that an outcome does not depend on the order it is drawn in.

The uniform of (stream, request, item) is a hash of these numbers (chained SplitMix64 finalisers, Steele et al. 2014).
Two rankers that show the same item in the same request therefore meet the same user randomness: common random
numbers, which take the noise of the users out of the comparison.
"""

from enum import IntEnum

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(IntEnum):
    """What a random number decides; also the first key of the generators of whole arrays."""

    CATALOGUE = 0
    POPULATION = 1
    DRIFT = 2
    VISITS = 3
    QUERY = 4
    PHRASING = 5
    SCENARIO = 6
    DEVICE = 7
    RETRIEVAL = 8
    POLICY = 9
    FEED = 10
    CLICK = 11
    CLICK_TIME = 12
    REFORMULATE = 13
    OFF_SEARCH = 14
    CART = 15
    FAVOURITE = 16
    PURCHASE = 17
    DELAY = 18
    ROUTE = 19


def generator(seed: int, stream: Stream, day: int = 0) -> np.random.Generator:
    """A generator of its own for each (seed, stream, day)."""
    return np.random.default_rng([seed, int(stream), day])


def keyed_uniform(seed: int, stream: Stream, *keys: np.ndarray | int) -> np.ndarray:
    """Uniforms in [0, 1), float64, in the broadcast shape of the integer keys (each at least 0)."""
    with np.errstate(over="ignore"):
        state = _mix(np.asarray(np.uint64(seed) * GOLDEN + np.uint64(stream)))
        for key in keys:
            state = _mix(state + (np.asarray(key).astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return np.asarray(state >> np.uint64(11)) * 2.0**-53


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise from uniforms: the argmax of log w + noise is a draw in proportion to w."""
    return -np.log(-np.log(np.clip(uniform, 1e-12, 1 - 1e-12)))


def log_logistic(uniform: np.ndarray, median: float, shape: float) -> np.ndarray:
    """Delays in the unit of `median` with a heavy tail: P(delay > t) = 1 / (1 + (t / median)^shape)."""
    share = np.clip(uniform, 1e-6, 1 - 1e-6)
    return median * (share / (1 - share)) ** (1 / shape)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
