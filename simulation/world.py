"""The marketplace as one value: items, users and their tastes by day, all rebuilt from (config, seed)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from simulation.catalogue import Catalogue, build_catalogue
from simulation.population import Population, Tastes, build_population, drift
from simulation.randomness import Stream, generator
from uniscale.sections import SimulationConfig

DOMAINS = ("search", "recommendation", "ads")
SEARCH, RECOMMENDATION, ADS = range(3)
SCENARIOS = ("keyword", "category", "promotion", "home_feed", "item_page_feed", "display_ads")
EVENT_TYPES = ("click", "cart", "favourite", "purchase")
CLICK, CART, FAVOURITE, PURCHASE = range(4)
SECOND = 1_000_000  # all times are integer microseconds, UTC
DAY = 86_400 * SECOND


@dataclass(frozen=True)
class World:
    """Everything that does not depend on what anybody is shown."""

    config: SimulationConfig
    seed: int
    catalogue: Catalogue
    population: Population
    first_tastes: Tastes
    taste_scale: float  # standard deviation of <style, embedding> over random pairs of a user and an item

    def tastes(self, days: range) -> Iterator[tuple[int, Tastes]]:
        """The days of a range with the tastes users have on them."""
        tastes = self.first_tastes
        for day in range(days.stop):
            if day:
                tastes = drift(tastes, self.population, self.seed, day)
            if day >= days.start:
                yield day, tastes

    def date(self, day: int) -> date:
        """Calendar date of a day counted from the start of the log."""
        return date.fromisoformat(self.config.start) + timedelta(days=day)

    def midnight(self, day: int) -> int:
        """First microsecond of a day since the epoch."""
        start = datetime.combine(date.fromisoformat(self.config.start), datetime.min.time(), UTC)
        return int(start.timestamp()) * SECOND + day * DAY


def build_world(config: SimulationConfig, seed: int) -> World:
    """Draw the marketplace of a configuration; the same (config, seed) gives the same one."""
    catalogue = build_catalogue(config, seed)
    population, tastes = build_population(config, seed, catalogue)
    rng = generator(seed, Stream.CATALOGUE, day=1)
    users, items = rng.integers(0, config.users, 4096), rng.integers(0, config.items, 4096)
    scale = np.einsum("nd,nd->n", tastes.style[users], catalogue.embedding[items]).std()
    return World(config, seed, catalogue, population, tastes, float(scale))
