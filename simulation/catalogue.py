"""Items of the marketplace: a three-level category tree, brands, prices, titles and frozen content embeddings.

With c, b, a the latent vectors of a leaf category, a brand and an attribute (all of about unit length),

    embedding(i) = unit(0.6 c_leaf + 0.45 b_brand + 0.35 (a_1 + a_2) + 0.3 noise)
    log price(i) = mu_leaf + 0.3 tier_brand + 0.35 noise
    log popularity(i) = 0.5 quality + 0.5 appeal + 0.9 noise

Quality (it sells) and appeal (it draws the eye) are standard normal and hidden: no log column holds them, only what
users did. Every item has one version; about a tenth of them are launched during the log.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulation.randomness import Stream, generator, gumbel
from simulation.vocabulary import ATTRIBUTES, CATEGORIES, brand_names
from uniscale.sections import SimulationConfig

MIDS_PER_ROOT = 4
LAUNCHED_SHARE = 0.1
SPONSORED_SHARE = 0.35


@dataclass(frozen=True)
class Catalogue:
    """Items in the order of their leaves (I items, L leaves, M mids, B brands, A attributes, d dimensions)."""

    item_id: pa.Array  # (I,) strings; numbered at random, so that an id says nothing about the category
    leaf: np.ndarray  # (I,) int32, ascending
    brand: np.ndarray  # (I,) int32
    seller: np.ndarray  # (I,) int32
    attributes: np.ndarray  # (I, 2) int32, different from each other
    price: np.ndarray  # (I,) float64, currency
    relative_price: np.ndarray  # (I,) standard deviations of log price from the leaf's mean
    quality: np.ndarray  # (I,)
    appeal: np.ndarray  # (I,)
    popularity: np.ndarray  # (I,) before the log begins, mean 1
    bid: np.ndarray  # (I,) currency a click in ads, 0 where the item is not advertised
    first_day: np.ndarray  # (I,) int32, days from the start of the log; negative: on sale before
    embedding: np.ndarray  # (I, d) float32, unit rows
    leaf_weight: np.ndarray  # (L,) demand of leaves, Zipfian, sums to 1
    leaf_vector: np.ndarray  # (L, d)
    mid_vector: np.ndarray  # (M, d)
    brand_vector: np.ndarray  # (B, d)
    attribute_vector: np.ndarray  # (A, d)
    names: tuple[tuple[str, str, str], ...]  # (L) paths from the root
    brands: tuple[str, ...]

    @property
    def leaves_per_mid(self) -> int:
        """Leaves below every second-level category."""
        return len(self.leaf_vector) // len(self.mid_vector)

    @cached_property
    def leaf_start(self) -> np.ndarray:
        """(L + 1,) index of the first item of every leaf, and the number of items."""
        return np.searchsorted(self.leaf, np.arange(len(self.leaf_vector) + 1))

    def mid_of(self, leaf: np.ndarray) -> np.ndarray:
        """Second-level category of leaves."""
        return leaf // self.leaves_per_mid

    def root_of(self, leaf: np.ndarray) -> np.ndarray:
        """First-level category of leaves."""
        return leaf // (self.leaves_per_mid * MIDS_PER_ROOT)

    def titles(self) -> list[str]:
        """Brand, two attributes and the leaf's name, lower case as queries are."""
        return [
            f"{self.brands[brand]} {ATTRIBUTES[first]} {ATTRIBUTES[second]} {self.names[leaf][2]}"
            for brand, (first, second), leaf in zip(self.brand, self.attributes, self.leaf, strict=True)
        ]


def build_catalogue(config: SimulationConfig, seed: int) -> Catalogue:
    """Draw the items of a marketplace (sizes by `config.items`, see the module for the equations)."""
    rng = generator(seed, Stream.CATALOGUE)
    count, width = config.items, config.embedding_dim
    roots = int(np.clip(count // 160, 2, len(CATEGORIES)))
    per_mid = int(np.clip(round(count / (roots * MIDS_PER_ROOT * 40)), 1, 4))
    names = tuple(
        (root, mid, name)
        for root, mids in list(CATEGORIES.items())[:roots]
        for mid, leaves in mids.items()
        for name in leaves[:per_mid]
    )
    leaves, mids = len(names), roots * MIDS_PER_ROOT
    root_vector = unit(rng.normal(size=(roots, width)))
    mid_vector = unit(0.7 * root_vector.repeat(MIDS_PER_ROOT, 0) + 0.7 * unit(rng.normal(size=(mids, width))))
    leaf_vector = unit(0.8 * mid_vector.repeat(per_mid, 0) + 0.6 * unit(rng.normal(size=(leaves, width))))
    leaf_weight = rng.permutation(1.0 / np.arange(1, leaves + 1) ** 0.7)
    leaf_weight /= leaf_weight.sum()

    # every leaf and half of the rest evenly, so that rare leaves still fill a page
    stock = 0.5 * leaf_weight + 0.5 / leaves
    leaf = np.sort(np.concatenate([np.arange(leaves), rng.choice(leaves, count - leaves, p=stock)])).astype(np.int32)
    first_of_leaf = np.diff(leaf, prepend=-1) > 0

    brands = int(np.clip(count // 25, 8, 200))
    brand_vector, tier = unit(rng.normal(size=(brands, width))), rng.normal(size=brands)
    serves = np.eye(roots)[np.arange(brands) % roots] + np.eye(roots)[rng.integers(0, roots, brands)]  # (B, roots)
    demand = np.log(1.0 / np.arange(1, brands + 1) ** 0.8)
    root = leaf // (per_mid * MIDS_PER_ROOT)
    open_to = np.where(serves.T[root] > 0, demand, -np.inf)  # (I, B)
    brand = np.argmax(open_to + gumbel(rng.random((count, brands))), axis=1).astype(np.int32)

    attribute_vector = unit(rng.normal(size=(len(ATTRIBUTES), width)))
    habit = 1.2 * rng.normal(size=(leaves, len(ATTRIBUTES)))  # a leaf has its usual attributes
    liking = habit[leaf] + gumbel(rng.random((count, len(ATTRIBUTES))))
    attributes = np.argsort(-liking, axis=1)[:, :2].astype(np.int32)

    quality, appeal = rng.normal(size=count), rng.normal(size=count)
    popularity = np.exp(0.5 * quality + 0.5 * appeal + 0.9 * rng.normal(size=count))
    premium = 0.3 * tier[brand] + 0.35 * rng.normal(size=count)
    level = np.log(25.0) + 0.9 * rng.normal(size=leaves)
    launched = (rng.random(count) < LAUNCHED_SHARE) & ~first_of_leaf
    first_day = np.where(launched, rng.integers(1, config.days, count), -rng.integers(30, 700, count))
    embedding = (
        0.6 * leaf_vector[leaf]
        + 0.45 * brand_vector[brand]
        + 0.35 * attribute_vector[attributes].sum(1)
        + 0.3 * unit(rng.normal(size=(count, width)))
    )
    sellers = max(count // 20, 2)
    seller_demand = 1.0 / np.arange(1, sellers + 1) ** 0.6
    return Catalogue(
        item_id=numbered("i", rng.permutation(count)),
        leaf=leaf,
        brand=brand,
        seller=rng.choice(sellers, count, p=seller_demand / seller_demand.sum()).astype(np.int32),
        attributes=attributes,
        price=np.round(np.exp(level[leaf] + premium), 2),
        relative_price=premium / np.hypot(0.3, 0.35),
        quality=quality,
        appeal=appeal,
        popularity=popularity / popularity.mean(),
        bid=np.where(rng.random(count) < SPONSORED_SHARE, np.round(0.1 * np.exp(0.5 * rng.normal(size=count)), 3), 0.0),
        first_day=first_day.astype(np.int32),
        embedding=unit(embedding).astype(np.float32),
        leaf_weight=leaf_weight,
        leaf_vector=leaf_vector,
        mid_vector=mid_vector,
        brand_vector=brand_vector,
        attribute_vector=attribute_vector,
        names=names,
        brands=tuple(brand_names(brands)),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def numbered(prefix: str, numbers: np.ndarray, digits: int = 6) -> pa.Array:
    """Ids such as `i000042`, made in Arrow."""
    text = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, text, "")
