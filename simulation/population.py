"""Users of the marketplace: profile, activity, tastes in the items' embedding space, and how tastes drift.

A user has a style vector s (what she likes in any category) and K interests (leaf categories, with weights w that sum
to 1). Profile shapes both:

    s = unit(0.5 g_gender + 0.5 g_age + 0.3 g_tier + noise)        interests ~ demand_leaf * exp(affinity_profile,root)
    log price sensitivity = 0.25 (tier - 2.5) - 0.12 (age - 2) + 0.35 noise          with tier and age band from 1

Every day (t), s <- unit(s + 0.03 noise), log w <- log w + 0.1 noise, and with probability 0.02 one interest is
replaced by a new one. Short interests live in the visits (`simulation.traffic`).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from simulation.catalogue import Catalogue, numbered, unit
from simulation.randomness import Stream, generator, gumbel
from uniscale.sections import SimulationConfig

GENDERS: tuple[str | None, ...] = ("female", "male", None)  # some users do not say
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
CITY_TIERS = ("1", "2", "3", "4")
DEVICES = ("mobile", "desktop", "tablet")
INTERESTS = 4
NEW_USER_SHARE = 0.12
REPLACED_INTEREST = 0.02


@dataclass(frozen=True)
class Population:
    """The users (U) as they are when the log begins."""

    user_id: pa.Array  # (U,) strings
    gender: np.ndarray  # (U,) index into GENDERS
    age_band: np.ndarray  # (U,)
    city_tier: np.ndarray  # (U,)
    device: np.ndarray  # (U,) the usual one
    registered_day: np.ndarray  # (U,) int32 days from the start of the log, negative for most
    registered_second: np.ndarray  # (U,) second of that day, before anybody visits
    activity: np.ndarray  # (U,) probability of a visit a day
    price_sensitivity: np.ndarray  # (U,) around 1
    affinity: np.ndarray  # (U, L) log-odds of leaves by profile


@dataclass(frozen=True)
class Tastes:
    """What users like on one day."""

    style: np.ndarray  # (U, d) unit rows
    interests: np.ndarray  # (U, K) int32 leaves
    weights: np.ndarray  # (U, K) rows sum to 1


def build_population(config: SimulationConfig, seed: int, catalogue: Catalogue) -> tuple[Population, Tastes]:
    """Draw the users and their tastes on the first day."""
    rng = generator(seed, Stream.POPULATION)
    count, width = config.users, config.embedding_dim
    gender = rng.choice(3, count, p=[0.5, 0.42, 0.08])
    age_band = rng.choice(5, count, p=[0.2, 0.32, 0.24, 0.14, 0.1])
    city_tier = rng.choice(4, count, p=[0.25, 0.35, 0.25, 0.15])
    leaves = len(catalogue.leaf_weight)
    roots = catalogue.root_of(np.arange(leaves))
    by_gender = 0.9 * rng.normal(size=(3, roots.max() + 1))
    by_age = 0.6 * rng.normal(size=(5, roots.max() + 1))
    affinity = np.log(catalogue.leaf_weight) + (by_gender[gender] + by_age[age_band])[:, roots]  # (U, L)

    def groups(size: int) -> np.ndarray:
        return unit(rng.normal(size=(size, width)))

    style = (
        0.5 * groups(3)[gender]
        + 0.5 * groups(5)[age_band]
        + 0.3 * groups(4)[city_tier]
        + unit(rng.normal(size=(count, width)))
    )
    joined = rng.random(count) < NEW_USER_SHARE
    population = Population(
        user_id=numbered("u", rng.permutation(count)),
        gender=gender,
        age_band=age_band,
        city_tier=city_tier,
        device=rng.choice(3, count, p=[0.75, 0.17, 0.08]),
        registered_day=np.where(joined, rng.integers(0, config.days, count), -rng.integers(1, 1500, count)),
        registered_second=rng.integers(0, 5 * 3600, count),
        activity=rng.beta(1.2, 2.8, count),
        price_sensitivity=np.exp(0.25 * (city_tier - 1.5) - 0.12 * (age_band - 1) + 0.35 * rng.normal(size=count)),
        affinity=affinity,
    )
    # the K largest of affinity + Gumbel noise: drawn without replacement in proportion to exp(affinity)
    interests = np.argsort(-(affinity + gumbel(rng.random((count, leaves)))), axis=1)[:, :INTERESTS].astype(np.int32)
    weights = rng.dirichlet(np.full(interests.shape[1], 1.5), count)
    return population, Tastes(unit(style), interests, np.clip(weights, 1e-6, None))


def drift(tastes: Tastes, population: Population, seed: int, day: int) -> Tastes:
    """Tastes of the next day (`day` is the day they are for)."""
    rng = generator(seed, Stream.DRIFT, day)
    users, kept = tastes.interests.shape
    style = unit(tastes.style + 0.03 * rng.normal(size=tastes.style.shape))
    weights = tastes.weights * np.exp(0.1 * rng.normal(size=tastes.weights.shape))
    interests = tastes.interests.copy()
    movers = np.flatnonzero(rng.random(users) < REPLACED_INTEREST)
    fresh = population.affinity[movers] + gumbel(rng.random((len(movers), population.affinity.shape[1])))
    np.put_along_axis(fresh, interests[movers], -np.inf, axis=1)  # not one she already has
    interests[movers, rng.integers(0, kept, len(movers))] = np.argmax(fresh, axis=1)
    return Tastes(style, interests, weights / weights.sum(1, keepdims=True))
