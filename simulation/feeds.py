"""Recommendation feeds and ads: what they show, with recent searches coming back, and the clicks on it.

A request draws three times as many items as it shows: where the user searched within the last two days, 40 % come from
her last search (half of them items it had shown, half any item of its list); 80 % of the rest from her interests, a
leaf by weight and an item of it by popularity; the others by popularity alone. So a page mixes several interests. It
shows those with the highest

    0.5 z(log(popularity + recent clicks)) + [from a search] 0.4 + 1.0 Gumbel noise        (+ 0.5 z(log bid) for ads)

Ads show advertised items only, and a click on one is charged its bid. Until it is two days old, a search leaves its
need in the user's mind: relevance to it counts in the utility of feeds and ads (`simulation.behaviour`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulation.behaviour import Needs, attraction, purchase, signals
from simulation.followups import Clicks
from simulation.population import Tastes
from simulation.randomness import Stream, gumbel, keyed_uniform
from simulation.retrieval import Production, best_columns, standardised
from simulation.search import decide
from simulation.traffic import Requests, draw_items, on_sale
from simulation.world import ADS, DAY, World

POOL = 3
MEMORY = 2 * DAY
FEED_SCENARIOS = (("home_feed",), ("item_page_feed",), ("home_feed", "promotion"), ("item_page_feed", "promotion"))
ADS_SCENARIOS = (("display_ads",), ("display_ads", "promotion"))


@dataclass(frozen=True)
class Trail:
    """What users searched, (N,) rows: when, for what, and what they were listed (N, C) and shown (N, n)."""

    user: np.ndarray
    ts: np.ndarray
    needs: Needs
    items: np.ndarray
    shown: np.ndarray  # items, -1 where there is none


@dataclass(frozen=True)
class Page:
    """Feed or ads requests with the items shown (N, n), and who clicked."""

    requests: Requests
    scenario: np.ndarray
    items: np.ndarray
    visible: np.ndarray
    clicked: np.ndarray


def browse(
    world: World, tastes: Tastes, production: Production, trails: Sequence[Trail], requests: Requests
) -> tuple[Page, Clicks]:
    """Fill the pages of the requests and draw the clicks; `trails` are the searches of this and the last two days."""
    last, needs, sources = _last_searches(world, trails, requests)
    pool, retargeted = _pool(world, tastes, production, requests, last, sources)
    listed = ~_repeated(pool) & (pool >= 0) & on_sale(world, requests.day)[pool]
    noise = gumbel(keyed_uniform(world.seed, Stream.FEED, requests.number[:, None], np.maximum(pool, 0), 99))
    score = 0.5 * standardised(np.log(production.popularity())[pool], listed) + 0.4 * retargeted + noise
    if requests.domain == ADS:
        bid = world.catalogue.bid[pool]
        listed &= bid > 0
        score += 0.5 * standardised(np.log(np.maximum(bid, 1e-9)), listed)
    columns = best_columns(np.where(listed, score, -np.inf), world.config.exposed)
    items, visible = np.take_along_axis(pool, np.maximum(columns, 0), 1), columns >= 0
    items = np.where(visible, items, 0)
    s = signals(world, tastes, requests.user, needs, requests.promotion, items)
    clicked, clicks = decide(world, requests, items, visible, attraction(requests.domain, s), purchase(s))
    surface = keyed_uniform(world.seed, Stream.SCENARIO, requests.number, 1) < 0.3
    scenario = requests.promotion.astype(int) * (1 if requests.domain == ADS else 2)
    return Page(requests, scenario if requests.domain == ADS else scenario + surface, items, visible, clicked), clicks


def _last_searches(
    world: World, trails: Sequence[Trail], requests: Requests
) -> tuple[np.ndarray, Needs, tuple[np.ndarray, np.ndarray]]:
    """The row of the user's last search before each request (-1: none within two days), its need, and all lists."""
    user, ts = np.concatenate([t.user for t in trails]), np.concatenate([t.ts for t in trails])
    order = np.lexsort((ts, user))
    user, ts = user[order], ts[order]
    wanted = [
        np.concatenate([getattr(t.needs, name) for t in trails])[order] for name in ("leaf", "brand", "attribute")
    ]
    needs = Needs(*wanted)
    items, shown = np.concatenate([t.items for t in trails])[order], np.concatenate([t.shown for t in trails])[order]
    # user and time in one sortable key; a trail reaches back two days, so the offset stays positive
    base, span = world.midnight(requests.day) - 3 * DAY, 8 * DAY
    keys = user.astype(np.int64) * span + (ts - base)
    row = np.searchsorted(keys, requests.user * span + (requests.ts - base)) - 1
    if len(user):
        known = (row >= 0) & (user[row] == requests.user) & (requests.ts - ts[row] <= MEMORY)
        row = np.where(known, row, -1)
    return row, needs.take(row), (items, shown)


def _pool(
    world: World,
    tastes: Tastes,
    production: Production,
    requests: Requests,
    last: np.ndarray,
    sources: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Items (N, 3n), repeats and all, and which of them come from the last search."""
    count, width, seed = len(requests), POOL * world.config.exposed, world.seed
    slot = np.arange(width)
    u = [keyed_uniform(seed, Stream.FEED, requests.number[:, None], slot, kind) for kind in range(4)]  # (N, 3n) each
    weight = production.popularity() * on_sale(world, requests.day)
    if requests.domain == ADS:
        weight = weight * (world.catalogue.bid > 0)
    cumulated = np.cumsum(tastes.weights[requests.user], axis=1)  # (N, K)
    kind = (u[0][:, :, None] > cumulated[:, None, :-1]).sum(2)
    leaf = np.take_along_axis(tastes.interests[requests.user], kind, 1)
    by_interest = draw_items(world, leaf, u[1], weight)
    total = np.cumsum(weight)
    by_popularity = np.searchsorted(total, u[1] * total[-1], side="right").clip(0, len(weight) - 1)
    pool = np.where(u[2] < 0.8, by_interest, by_popularity)
    items, shown = sources
    if not len(items):
        return pool, np.zeros((count, width), bool)
    row = np.maximum(last, 0)[:, None]
    of_list = items[row, (u[1] * items.shape[1]).astype(int)]
    of_page = shown[row, (u[1] * shown.shape[1]).astype(int)]
    recalled = np.where(u[3] < 0.5, of_page, of_list)
    retargeted = (slot < round(0.4 * width)) & (last >= 0)[:, None] & (recalled >= 0)
    return np.where(retargeted, recalled, pool), retargeted


def _repeated(pool: np.ndarray) -> np.ndarray:
    """Which entries of the rows (N, m) appear earlier in their row."""
    order = np.argsort(pool, axis=1, kind="stable")
    ranked = np.take_along_axis(pool, order, 1)
    again = np.zeros(pool.shape, bool)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
    return again
