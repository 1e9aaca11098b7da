"""Retrieval and the production ranking: which items a search lists, and which of them the market showed.

For query q and item i,

    score(q, i) = m + 0.6 [brand named] + 0.4 [attribute named] + 0.5 cos(query vector, embedding_i)
                  + 0.1 log popularity_i + 0.08 Gumbel noise a request
    m = 1 in the named category, 0.5 in the mid around a named leaf, 0.15 in its root, else 0

so a list is mostly relevant and blind to the user. Production ranks it by

    0.8 z(score) + 1.0 z(log(popularity_i + recent clicks_i)) + 0.6 Gumbel noise

with z standardised within the list: imperfect, impersonal, and biased to what is popular already.
"""

import numpy as np

from simulation.behaviour import has_attribute
from simulation.catalogue import unit
from simulation.queries import Queries
from simulation.randomness import Stream, gumbel, keyed_uniform
from simulation.traffic import on_sale
from simulation.vocabulary import ATTRIBUTES
from simulation.world import World

SPARE = 2  # kept a query, as a multiple of the list, for items not on sale yet and the noise
CHUNK_CELLS = 4_000_000
CLICKS_OF_POPULARITY = 5.0  # a popularity of 1 weighs as much as this many clicks
CLICK_MEMORY = 0.97  # kept of the click counts from one day to the next


class Retrieval:
    """Scores each different query once and keeps its best items."""

    def __init__(self, world: World):
        self.world = world
        catalogue = world.catalogue
        leaves, mids = len(catalogue.leaf_vector), len(catalogue.mid_vector)
        self.brands, self.words = len(catalogue.brand_vector) + 1, len(ATTRIBUTES) + 1
        self.row_of = np.full((leaves + mids) * self.brands * self.words, -1, np.int64)
        self.kept = min(world.config.items, SPARE * world.config.candidates)
        self.items = np.empty((0, self.kept), np.int32)
        self.scores = np.empty((0, self.kept), np.float32)
        self.node_vector = np.concatenate([catalogue.leaf_vector, catalogue.mid_vector])
        every = np.arange(leaves)
        mid, root = catalogue.mid_of(every), catalogue.root_of(every)
        node_mid = np.concatenate([mid, np.arange(mids)])
        node_root = np.concatenate([root, root[:: catalogue.leaves_per_mid]])
        same_mid = node_mid[:, None] == mid
        exact = np.concatenate([np.eye(leaves, dtype=bool), same_mid[leaves:]])
        self.match = np.where(exact, 1.0, np.where(same_mid, 0.5, 0.15 * (node_root[:, None] == root)))  # (nodes, L)

    def lists(self, queries: Queries, numbers: np.ndarray, day: int) -> tuple[np.ndarray, np.ndarray]:
        """Items (N, C) int32, best first, and their scores (N, C) float32; -1 and -inf where a list is shorter."""
        codes = (queries.node * self.brands + queries.brand + 1) * self.words + queries.attribute + 1
        self._learn(np.unique(codes[self.row_of[codes] < 0]))
        rows = self.row_of[codes]
        items = self.items[rows]
        noise = gumbel(keyed_uniform(self.world.seed, Stream.RETRIEVAL, numbers[:, None], items))
        scores = self.scores[rows] + 0.08 * noise
        scores[~on_sale(self.world, day)[items]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.world.config.candidates]
        scores = np.take_along_axis(scores, order, 1).astype(np.float32)
        return np.where(np.isfinite(scores), np.take_along_axis(items, order, 1), -1).astype(np.int32), scores

    def _learn(self, codes: np.ndarray) -> None:
        """Score new queries against the whole catalogue, a chunk at a time."""
        catalogue = self.world.catalogue
        size = max(CHUNK_CELLS // len(catalogue.leaf), 1)
        found_items, found_scores = [self.items], [self.scores]
        popularity = (0.1 * np.log(catalogue.popularity)).astype(np.float32)
        for at in range(0, len(codes), size):
            part = codes[at : at + size]
            node, rest = np.divmod(part, self.brands * self.words)
            brand, attribute = rest // self.words - 1, rest % self.words - 1
            vector = self.node_vector[node]
            vector = vector + 0.7 * np.where(brand[:, None] >= 0, catalogue.brand_vector[brand], 0.0)
            vector = vector + 0.5 * np.where(attribute[:, None] >= 0, catalogue.attribute_vector[attribute], 0.0)
            scores = 0.5 * unit(vector).astype(np.float32) @ catalogue.embedding.T + popularity  # (Q, I)
            scores += self.match[node].astype(np.float32)[:, catalogue.leaf]
            scores += np.float32(0.6) * (catalogue.brand == brand[:, None])
            scores += np.float32(0.4) * has_attribute(catalogue.attributes[None], attribute[:, None])
            best = np.argpartition(-scores, self.kept - 1, axis=1)[:, : self.kept]
            found_items.append(best.astype(np.int32))
            found_scores.append(np.take_along_axis(scores, best, 1))
        self.row_of[codes] = len(self.items) + np.arange(len(codes))
        self.items, self.scores = np.concatenate(found_items), np.concatenate(found_scores)


class Production:
    """The ranking that wrote the logs; it counts clicks and so feeds its own bias."""

    def __init__(self, world: World):
        self.world = world
        self.clicks = np.zeros(world.config.items)

    def popularity(self) -> np.ndarray:
        """(I,) prior popularity and recent clicks, in the prior's unit."""
        return self.world.catalogue.popularity + self.clicks / CLICKS_OF_POPULARITY

    def top(self, items: np.ndarray, scores: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Columns of the lists (N, C) that are shown, best first: (N, n), -1 where a list has no more items."""
        listed = items >= 0
        noise = gumbel(keyed_uniform(self.world.seed, Stream.POLICY, numbers[:, None], np.maximum(items, 0)))
        popularity = np.log(self.popularity())[items]
        total = 0.8 * standardised(scores, listed) + standardised(popularity, listed) + 0.6 * noise
        return best_columns(np.where(listed, total, -np.inf), self.world.config.exposed)

    def learn(self, clicked: np.ndarray) -> None:
        """Close a day: forget a little and count its clicks (item indices)."""
        self.clicks = CLICK_MEMORY * self.clicks + np.bincount(clicked, minlength=len(self.clicks))


def standardised(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and standard deviation 1 over their valid entries; 0 elsewhere."""
    count = np.maximum(valid.sum(1, keepdims=True), 1)
    values = np.where(valid, values, 0.0)
    centred = np.where(valid, values - values.sum(1, keepdims=True) / count, 0.0)
    return centred / np.maximum(np.sqrt((centred**2).sum(1, keepdims=True) / count), 1e-6)


def best_columns(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` highest scores of every row, best first; -1 in place of a score of -inf."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.where(np.isfinite(np.take_along_axis(scores, order, 1)), order, -1)
