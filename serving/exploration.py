"""Exploration: a random order whose probability is known exactly, so that logged clicks can judge other orders.

Positions are filled one after the other, up to a bound; below it the order is the greedy one. The propensity of the
item at a position is its probability of being drawn there given the items above it, so the product over positions is
the probability of the whole order (Plackett, The Analysis of Permutations, 1975; Luce, Individual Choice Behavior,
1959). With scores p, temperature τ and R the known items not yet placed:

    plackett_luce    P(i) = p_i^(1/τ) / Σ_{j ∈ R} p_j^(1/τ), drawn by adding Gumbel noise to log p / τ
    epsilon_greedy   P(i) = ε / |R| + (1 - ε) · [i is the best of R]
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serving.engine import Ranking
from uniscale.sections import ExplorationConfig

TINY = np.finfo(np.float64).tiny


def explore(ranking: Ranking, config: ExplorationConfig, rng: np.random.Generator) -> Ranking:
    """The ranking in a drawn order with its propensities, (N,); unchanged where exploration is off.

    Items without a score stay last, with propensity 1.
    """
    if config.policy == "none":
        return ranking
    known = int(np.isfinite(ranking.scores).sum())
    positions = min(config.positions, known)
    scores = ranking.scores[:known].astype(np.float64)  # falling
    if config.policy == "plackett_luce":
        drawn, chances = _plackett_luce(np.log(np.maximum(scores, TINY)) / config.temperature, positions, rng)
    else:
        drawn, chances = _epsilon_greedy(known, config.epsilon, positions, rng)
    rest = np.setdiff1d(np.arange(known), drawn)  # sorted: the greedy order
    order = np.concatenate([drawn, rest, np.arange(known, len(ranking.item_ids))])
    return replace(
        ranking,
        item_ids=[ranking.item_ids[place] for place in order],
        scores=ranking.scores[order],
        propensities=np.concatenate([chances, np.ones(len(order) - positions)]),
    )


def _plackett_luce(
    utilities: NDArray[np.float64], positions: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places drawn (positions,) and the conditional probability of each."""
    noisy = utilities + rng.gumbel(size=len(utilities))
    order = np.argsort(-noisy, kind="stable")
    sorted_utilities = utilities[order]
    left = np.logaddexp.accumulate(sorted_utilities[::-1])[::-1]  # log Σ over what is not yet placed
    return order[:positions], np.exp(sorted_utilities - left)[:positions]


def _epsilon_greedy(
    known: int, epsilon: float, positions: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    left = list(range(known))
    drawn, chances = np.empty(positions, np.int64), np.empty(positions)
    for position in range(positions):
        place = int(rng.integers(len(left))) if rng.random() < epsilon else 0
        chances[position] = epsilon / len(left) + (1 - epsilon) * (place == 0)
        drawn[position] = left.pop(place)
    return drawn, chances
