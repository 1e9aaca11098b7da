"""The search domain: requests with their lists and truth, clicks on what is shown, and what dissatisfaction leads to.

A user who clicked nothing words the query anew with probability 0.45, else with 0.08, 20 to 150 seconds later and
twice at most. And she goes on looking outside search (item pages, shops, friends' links): with probability 0.45 after
a page without a click, else 0.2, she later clicks one item of the list in a surface whose requests are not logged; an
event of the recommendation domain without a request id. Which item follows her feed utility, three times as likely
when search had shown it, so unexposed items get clicks as well, and for their merit. The delay is log-logistic with a
median of 4 hours.
"""

from dataclasses import dataclass

import numpy as np

from simulation.behaviour import Signals, attraction, examination, purchase, signals
from simulation.followups import Clicks
from simulation.population import Tastes
from simulation.queries import Queries, attempt_of, phrase, reworded
from simulation.randomness import Stream, gumbel, keyed_uniform, log_logistic
from simulation.retrieval import Retrieval
from simulation.traffic import MAX_ROUNDS, Requests
from simulation.world import RECOMMENDATION, SEARCH, SECOND, World

EXPOSURE_DELAY = 300_000  # microseconds from the request to its items on the screen
HOUR = 3600 * SECOND
OUTSIDE = 10**15  # added to a request number to key what follows outside of it


@dataclass(frozen=True)
class Searches:
    """Requests with their lists (N, C) and the truth about every listed item."""

    requests: Requests
    queries: Queries
    items: np.ndarray  # (N, C) int32, -1 where a list is shorter
    scores: np.ndarray  # (N, C) float32, of the retrieval
    click: np.ndarray  # (N, C) P(click | examined)
    buy: np.ndarray  # (N, C) P(buy | click)
    signals: Signals


def retrieve(world: World, tastes: Tastes, retrieval: Retrieval, requests: Requests) -> Searches:
    """Word the requests, retrieve their lists, and work out the truth."""
    queries = phrase(world, requests, attempt_of(requests.number))
    items, scores = retrieval.lists(queries, requests.number, requests.day)
    s = signals(world, tastes, requests.user, requests.needs, requests.promotion, items)
    return Searches(requests, queries, items, scores, attraction(SEARCH, s), purchase(s), s)


def clicks_on(world: World, searches: Searches, shown: np.ndarray) -> tuple[np.ndarray, Clicks]:
    """Who clicks what of the shown columns (N, n): a mask (N, n), and the clicks."""
    requests = searches.requests
    items, visible = shown_items(searches, shown)
    attractive = np.take_along_axis(searches.click, np.maximum(shown, 0), 1)
    buy = np.take_along_axis(searches.buy, np.maximum(shown, 0), 1)
    return decide(world, requests, items, visible, attractive, buy)


def shown_items(searches: Searches, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items (N, n) of shown columns, and which entries there are."""
    items = np.take_along_axis(searches.items, np.maximum(shown, 0), 1)
    return np.maximum(items, 0), (shown >= 0) & (items >= 0)


def decide(
    world: World, requests: Requests, items: np.ndarray, visible: np.ndarray, attractive: np.ndarray, buy: np.ndarray
) -> tuple[np.ndarray, Clicks]:
    """Draw the clicks on items (N, n) by the position-based model; keyed by (request, item), in any domain."""
    seed, number = world.seed, requests.number[:, None]
    seen = examination(requests.domain, requests.device, items.shape[1])
    mask = visible & (keyed_uniform(seed, Stream.CLICK, number, items) < seen * attractive)
    row, column = np.nonzero(mask)
    item = items[row, column]
    # reading down the page takes a few seconds an item
    pause = (1.0 + column * 2.0 + 4.0 * keyed_uniform(seed, Stream.CLICK_TIME, requests.number[row], item)) * SECOND
    return mask, Clicks(
        user=requests.user[row],
        item=item,
        ts=requests.ts[row] + EXPOSURE_DELAY + pause.astype(np.int64),
        domain=np.full(len(row), requests.domain, np.int8),
        request=requests.number[row],
        key=requests.number[row],
        buy=buy[row, column],
    )


def reformulations(world: World, requests: Requests, clicked: np.ndarray) -> Requests:
    """The next attempts after a round of searches in which `clicked` (N,) says who clicked anything."""
    u = keyed_uniform(world.seed, Stream.REFORMULATE, requests.number, 0)
    again = (u < np.where(clicked, 0.08, 0.45)) & (attempt_of(requests.number) < MAX_ROUNDS - 1)
    rows = np.flatnonzero(again)
    wait = 20 + 130 * keyed_uniform(world.seed, Stream.REFORMULATE, requests.number[rows], 1)
    return reworded(requests, rows, (wait * SECOND).astype(np.int64))


def off_search(world: World, searches: Searches, shown: np.ndarray, clicked: np.ndarray) -> Clicks:
    """Clicks outside of search on an item of the list, by the users who go on looking."""
    seed, requests = world.seed, searches.requests
    u = keyed_uniform(seed, Stream.OFF_SEARCH, requests.number, 0)
    rows = np.flatnonzero(u < np.where(clicked, 0.2, 0.45))
    items = searches.items[rows]  # (r, C)
    exposed = np.zeros(searches.items.shape, bool)
    row, place = np.nonzero(shown >= 0)
    exposed[row, shown[row, place]] = True
    pull = np.log(_odds(attraction(RECOMMENDATION, searches.signals)[rows])) + np.log(3.0) * exposed[rows]
    noise = gumbel(keyed_uniform(seed, Stream.OFF_SEARCH, requests.number[rows, None] + OUTSIDE, np.maximum(items, 0)))
    column = np.argmax(np.where(items >= 0, pull + noise, -np.inf), axis=1)
    delay = log_logistic(keyed_uniform(seed, Stream.OFF_SEARCH, requests.number[rows], 1), 4 * HOUR, 1.4)
    return Clicks(
        user=requests.user[rows],
        item=items[np.arange(len(rows)), column],
        ts=requests.ts[rows] + EXPOSURE_DELAY + 60 * SECOND + delay.astype(np.int64),
        domain=np.full(len(rows), RECOMMENDATION, np.int8),
        request=np.full(len(rows), -1, np.int64),
        key=requests.number[rows] + OUTSIDE,
        buy=searches.buy[rows, column],
    )


def _odds(probability: np.ndarray) -> np.ndarray:
    return probability / (1 - probability)
