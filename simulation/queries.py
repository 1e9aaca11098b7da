"""Queries: how a need is put into words, entered, and reworded by a user who found nothing.

A query names a category (the leaf, or in a fifth of first attempts only the broader mid) and, when they are wanted,
the brand with probability 0.6 and the attribute with probability 0.5. A reformulation always names the leaf, and
brand and attribute with probability 0.85 each. Word order and extra words are drawn from the phrasings below with
Zipfian probabilities, so that one need has several texts and the query log a long tail.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from simulation.randomness import Stream, keyed_uniform
from simulation.traffic import MAX_ROUNDS, Requests
from simulation.vocabulary import ATTRIBUTES
from simulation.world import World

PHRASINGS = (
    "{brand} {attribute} {category}",
    "{attribute} {category} {brand}",
    "{category} {brand} {attribute}",
    "{brand} {attribute} {singular}",
    "best {brand} {attribute} {category}",
    "{category} {attribute} by {brand}",
)
PHRASING_WEIGHT = 1.0 / np.arange(1, len(PHRASINGS) + 1) ** 1.2
SALE_SUFFIX = " sale"  # in half of the promotion's queries
SEARCH_SCENARIOS = (
    ("keyword",),
    ("keyword", "category"),
    ("category",),
    ("keyword", "promotion"),
    ("keyword", "category", "promotion"),
    ("category", "promotion"),
)


@dataclass(frozen=True)
class Queries:
    """What was asked, (N,) each; nodes 0 … L-1 are leaves, L … L+M-1 mids; -1 where a word is left out."""

    node: np.ndarray
    brand: np.ndarray
    attribute: np.ndarray
    phrasing: np.ndarray
    scenario: np.ndarray  # index into SEARCH_SCENARIOS


def phrase(world: World, requests: Requests, attempt: np.ndarray) -> Queries:
    """Put needs into words; `attempt` (N,) is 0 for a first query, 1 and 2 for its reformulations."""
    seed, needs, first = world.seed, requests.needs, attempt == 0
    u = [keyed_uniform(seed, Stream.QUERY, requests.number, word) for word in range(4)]
    broad = first & (u[0] < 0.2)
    leaves = len(world.catalogue.leaf_weight)
    # from a category page rather than the search box: no brand, no attribute, no phrasing
    navigated = broad & (u[3] < 0.4)
    share_brand, share_attribute = np.where(first, 0.6, 0.85), np.where(first, 0.5, 0.85)
    cumulated = np.cumsum(PHRASING_WEIGHT / PHRASING_WEIGHT.sum())
    way = np.searchsorted(cumulated, keyed_uniform(seed, Stream.PHRASING, requests.number, 0)).clip(
        0, len(cumulated) - 1
    )
    sale = requests.promotion & (keyed_uniform(seed, Stream.PHRASING, requests.number, 1) < 0.5) & ~navigated
    return Queries(
        node=np.where(broad, leaves + world.catalogue.mid_of(needs.leaf), needs.leaf),
        brand=np.where((u[1] < share_brand) & ~navigated, needs.brand, -1),
        attribute=np.where((u[2] < share_attribute) & ~navigated, needs.attribute, -1),
        phrasing=np.where(navigated, 0, way) + len(PHRASINGS) * sale,
        scenario=np.where(navigated, 2, broad.astype(int)) + 3 * requests.promotion,
    )


def texts(world: World, queries: Queries) -> pa.Array:
    """The typed strings, (N,); one Python string is built for each different query."""
    columns = np.stack([queries.node, queries.brand, queries.attribute, queries.phrasing], axis=1)
    different, row = np.unique(columns, axis=0, return_inverse=True)
    return pa.array([_text(world, *map(int, query)) for query in different], pa.string()).take(pa.array(row.ravel()))


def reworded(requests: Requests, rows: np.ndarray, delay: np.ndarray) -> Requests:
    """The next attempts of some requests, `delay` microseconds later and numbered one up."""
    again = requests.take(rows)
    return Requests(
        again.domain,
        again.day,
        again.number + 1,
        again.user,
        again.ts + delay,
        again.device,
        again.promotion,
        again.needs,
    )


def attempt_of(number: np.ndarray) -> np.ndarray:
    """Which attempt a search request number stands for: 0, 1 or 2."""
    return number % MAX_ROUNDS


def _text(world: World, node: int, brand: int, attribute: int, phrasing: int) -> str:
    catalogue = world.catalogue
    leaves = len(catalogue.names)
    category = (
        catalogue.names[node][2] if node < leaves else catalogue.names[(node - leaves) * catalogue.leaves_per_mid][1]
    )
    text = PHRASINGS[phrasing % len(PHRASINGS)].format(
        brand=catalogue.brands[brand] if brand >= 0 else "",
        attribute=ATTRIBUTES[attribute] if attribute >= 0 else "",
        category=category,
        singular=category.removesuffix("s"),
    )
    words = text.split()
    if words[-1] == "by":  # the brand that should follow was left out
        words.pop()
    return " ".join(words) + (SALE_SUFFIX if phrasing >= len(PHRASINGS) else "")
