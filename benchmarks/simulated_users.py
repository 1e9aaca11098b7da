"""Per-user tables of simulated experiments, drawn directly: many experiments in seconds; orders drawn at serving."""

import numpy as np
import pyarrow as pa

from monitoring.counterfactual import Draws

SCORES = np.array([0.4, 0.3, 0.2, 0.1])  # of four items, whose order Plackett–Luce draws
TASTE = np.array([0.1, 0.5, 0.3, 0.2])  # chance of a click at the first position
WANTED = (1, 2)  # the order that is judged


def user_table(rng: np.random.Generator, users: int = 400, lift: float = 0.0, before: bool = False) -> pa.Table:
    """One row a user, whose own click rate makes that user's clicks alike; arms are drawn fairly."""
    rate = rng.beta(1.5, 6.0, users)
    treated = rng.random(users) < 0.5
    columns = {"variant": np.where(treated, "candidate", "champion")}
    periods = [("", np.where(treated, 1 + lift, 1.0))] + ([("_before", np.ones(users))] if before else [])
    for suffix, effect in periods:
        impressions = 10 * (1 + rng.poisson(3, users))
        clicks = rng.binomial(impressions, np.minimum(rate * effect, 1.0))
        orders = rng.binomial(clicks, 0.15)
        columns |= {
            f"requests{suffix}": impressions / 10,
            f"impressions{suffix}": impressions.astype(float),
            f"clicks{suffix}": clicks.astype(float),
            f"orders{suffix}": orders.astype(float),
            f"gmv{suffix}": orders * rng.lognormal(3.0, 0.6, users),
            f"converted{suffix}": (orders > 0).astype(float),
        }
    return pa.table(columns)


def requests_of(rng: np.random.Generator, users: int = 150, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Latencies and users of one arm's requests: some users are slow throughout, so requests of a user are alike."""
    count = 1 + rng.poisson(12, users)
    slowness = rng.lognormal(0.0, 0.5, users)
    user = np.repeat(np.arange(users), count)
    return rng.lognormal(2.0, 0.3, len(user)) * slowness[user] * shift, user


def clicks_at(items: tuple[int, int] | np.ndarray) -> np.ndarray:
    """Expected clicks of a list of two (2,): the second gets less, and less still below an attractive one (cascade)."""
    first, second = items
    return np.array([TASTE[first], 0.6 * (1 - TASTE[first]) * TASTE[second]])


def plackett_luce(items: tuple[int, int] | np.ndarray) -> np.ndarray:
    """Probability of each item of a list of two (2,) given the one above it."""
    first, second = items
    return np.array([SCORES[first], SCORES[second] / (1 - SCORES[first])])


def drawn_orders(rng: np.random.Generator, requests: int, users: int) -> Draws:
    """Requests whose order was drawn with known propensities, by users who click unequally often."""
    order = np.argsort(-(np.log(SCORES) + rng.gumbel(size=(requests, 4))), axis=1)[:, :2]
    user = rng.integers(0, users, requests)
    keen = rng.uniform(0.4, 1.6, users)[user]
    clicks = rng.random((requests, 2)) < keen[:, None] * np.array([clicks_at(pair) for pair in order])
    propensity = np.array([plackett_luce(pair) for pair in order])
    return Draws(user, order, np.tile(WANTED, (requests, 1)), propensity, clicks.astype(float))
