"""Per-user tables of simulated experiments, drawn directly: many experiments in seconds."""

import numpy as np
import pyarrow as pa


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
