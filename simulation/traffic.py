"""Who comes when, and what for: visits, the needs behind them, and the requests they turn into.

A user visits on a day with her own probability (Beta-distributed over users, more at weekends). A visit begins around
noon or in the evening and has Poisson numbers of searches, feed and ads requests with the configured means. Searches
come soon after its start, feed and ads requests later, so that a feed often follows a search.

Every visit has a leaf category in mind (a short session interest): one of the user's interests with probability 0.8,
any leaf by demand otherwise. A search is about it with probability 0.7, about another one otherwise. What is wanted is
modelled on an existing item, so that wishes follow the catalogue: of three items of the leaf, drawn by popularity, the
one most to the user's taste; its brand is wanted with probability 0.5, one of its attributes with probability 0.5.
"""

from dataclasses import dataclass

import numpy as np

from simulation.behaviour import Needs, sigmoid
from simulation.population import Tastes
from simulation.randomness import Stream, generator, gumbel, keyed_uniform
from simulation.world import DOMAINS, SEARCH, SECOND, World

MEAN_ACTIVITY = 0.3  # of Beta(1.2, 2.8)
MAX_ROUNDS = 3  # a query and two reformulations
LAST_SECOND = 86_400 - 600  # leaves time for the reformulations of the day's last query
REQUESTS_A_DAY = MAX_ROUNDS * 10**8  # request numbers reserved for one day and domain


@dataclass(frozen=True)
class Requests:
    """Requests of one domain and day, (N,) each."""

    domain: int
    day: int
    number: np.ndarray  # int64, unique over the whole log; the request id is made of it
    user: np.ndarray
    ts: np.ndarray  # int64 microseconds
    device: np.ndarray
    promotion: np.ndarray  # bool
    needs: Needs  # what a search is for; unknown to the market

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: np.ndarray) -> "Requests":
        """Some of the requests, by index."""
        picked = (self.number[rows], self.user[rows], self.ts[rows], self.device[rows], self.promotion[rows])
        return Requests(self.domain, self.day, *picked, self.needs.take(rows))


def day_of_requests(world: World, tastes: Tastes, day: int, rates: tuple[float, float, float]) -> list[Requests]:
    """First requests of a day by domain, in order of time; `rates` are means a registered user and day."""
    population, rng = world.population, generator(world.seed, Stream.VISITS, day)
    season = 1.15 if world.date(day).weekday() >= 5 else 0.94
    present = rng.random(len(population.activity)) < population.activity * season
    visitor = np.flatnonzero(present & (population.registered_day <= day))
    noon = rng.random(len(visitor)) < 0.4
    hour = np.where(noon, rng.normal(12.5, 2.0, len(visitor)), rng.normal(19.5, 2.0, len(visitor)))
    start = 3600 * np.clip(hour, 6.0, 23.0)
    session_leaf = _leaves(world, tastes, visitor, rng)
    requests = []
    for domain, rate in enumerate(rates):
        visit = np.repeat(np.arange(len(visitor)), rng.poisson(rate / MEAN_ACTIVITY, len(visitor)))
        user = visitor[visit]
        lateness = rng.random(len(visit)) ** (3.0 if domain == SEARCH else 1.3)
        second = start[visit] + (LAST_SECOND - start[visit]) * lateness
        order = np.argsort(second, kind="stable")
        visit, user, second = visit[order], user[order], second[order]
        number = (day * len(DOMAINS) + domain) * REQUESTS_A_DAY + np.arange(len(visit), dtype=np.int64) * MAX_ROUNDS
        other = keyed_uniform(world.seed, Stream.DEVICE, number)
        usual = np.where(other < 0.85, population.device[user], 0)
        keen = -1.8 + 0.8 * np.log(population.price_sensitivity[user]) + (0.7 if season > 1 else 0.0)
        requests.append(
            Requests(
                domain=domain,
                day=day,
                number=number,
                user=user,
                ts=world.midnight(day) + (second * SECOND).astype(np.int64),
                device=usual,
                promotion=keyed_uniform(world.seed, Stream.SCENARIO, number) < sigmoid(keen),
                needs=_needs(world, tastes, user, session_leaf[visit], rng)
                if domain == SEARCH
                else Needs(*(np.full(len(visit), -1),) * 3),
            )
        )
    return requests


def draw_items(world: World, leaf: np.ndarray, uniform: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One item of each leaf in proportion to `weight` (I,); of the whole catalogue where a leaf has no weight."""
    total = np.concatenate([[0.0], np.cumsum(weight)])
    bounds = world.catalogue.leaf_start
    low, high = total[bounds[leaf]], total[bounds[leaf + 1]]
    empty = high <= low
    low, high = np.where(empty, 0.0, low), np.where(empty, total[-1], high)
    return np.searchsorted(total, low + uniform * (high - low), side="right").clip(1, len(weight)) - 1


def on_sale(world: World, day: int) -> np.ndarray:
    """(I,) whether items can be shown on a day."""
    return world.catalogue.first_day <= day


def _leaves(world: World, tastes: Tastes, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A leaf for each user: an interest by its weight, or any by demand."""
    weights = np.log(tastes.weights[user])
    kind = np.argmax(weights + gumbel(rng.random(weights.shape)), axis=1)
    anything = rng.choice(len(world.catalogue.leaf_weight), len(user), p=world.catalogue.leaf_weight)
    return np.where(rng.random(len(user)) < 0.8, tastes.interests[user, kind], anything)


def _needs(world: World, tastes: Tastes, user: np.ndarray, session_leaf: np.ndarray, rng: np.random.Generator) -> Needs:
    catalogue, count = world.catalogue, len(user)
    leaf = np.where(rng.random(count) < 0.7, session_leaf, _leaves(world, tastes, user, rng))
    options = draw_items(world, leaf[:, None].repeat(3, 1), rng.random((count, 3)), catalogue.popularity)  # (N, 3)
    liking = np.einsum("nd,nmd->nm", tastes.style[user], catalogue.embedding[options]) / world.taste_scale
    model = options[np.arange(count), np.argmax(liking + gumbel(rng.random((count, 3))), axis=1)]
    attribute = catalogue.attributes[model, rng.integers(0, 2, count)]
    return Needs(
        leaf=leaf,
        brand=np.where(rng.random(count) < 0.5, catalogue.brand[model], -1),
        attribute=np.where(rng.random(count) < 0.5, attribute, -1),
    )
