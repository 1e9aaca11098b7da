"""What follows a click: carts, favourites and purchases, minutes to days later, here or elsewhere.

    P(buy | click) by `behaviour.purchase`; the delay is log-logistic, median 2 h, shape 1.1 (a tenth after a day)
    P(cart | buyer) = 0.7, between click and purchase; P(cart | no buyer) = 0.08; P(favourite) = 0.06; minutes later

After a search click three purchases in ten are made elsewhere (item page, basket, feed): recommendation domain, no
request id. Other purchases carry the domain and the request of their click.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from simulation.randomness import Stream, keyed_uniform, log_logistic
from simulation.world import ADS, CART, CLICK, FAVOURITE, PURCHASE, RECOMMENDATION, SEARCH, SECOND, World

MINUTE = 60 * SECOND
ELSEWHERE_SHARE = 0.3


@dataclass(frozen=True)
class Clicks:
    """Clicks (K,) with what decides their consequences."""

    user: np.ndarray
    item: np.ndarray
    ts: np.ndarray  # microseconds
    domain: np.ndarray
    request: np.ndarray  # request number, -1 unknown
    key: np.ndarray  # number that keys the randomness of the consequences
    buy: np.ndarray  # P(buy | click)


@dataclass(frozen=True)
class Events:
    """Events (E,) of any type."""

    user: np.ndarray
    item: np.ndarray
    ts: np.ndarray
    domain: np.ndarray
    type: np.ndarray
    request: np.ndarray
    amount: np.ndarray  # nan where there is none

    def __len__(self) -> int:
        return len(self.user)

    def where(self, mask: np.ndarray) -> "Events":
        """The events of a mask or in an order of indices."""
        return Events(*(getattr(self, field.name)[mask] for field in fields(self)))


def join(parts: Sequence[Events]) -> Events:
    """Events of several parts, one after the other."""
    return Events(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Events)))


def consequences(world: World, clicks: Clicks) -> Events:
    """The clicks themselves and all that follows from them; later than the end of a log where it so falls."""
    seed, catalogue, keys = world.seed, world.catalogue, (clicks.key, clicks.item)
    buys = keyed_uniform(seed, Stream.PURCHASE, *keys) < clicks.buy
    purchase_delay = MINUTE + log_logistic(keyed_uniform(seed, Stream.DELAY, *keys), 120 * MINUTE, 1.1)
    elsewhere = (clicks.domain == SEARCH) & (keyed_uniform(seed, Stream.ROUTE, *keys) < ELSEWHERE_SHARE)
    hurry = keyed_uniform(seed, Stream.CART, *keys, 1)
    puts = keyed_uniform(seed, Stream.CART, *keys, 0) < np.where(buys, 0.7, 0.08)
    soon = 5 * SECOND + log_logistic(hurry, 3 * MINUTE, 1.5)
    cart_delay = np.where(buys, 0.8 * hurry * purchase_delay, soon)
    likes = keyed_uniform(seed, Stream.FAVOURITE, *keys, 0) < 0.06
    like_delay = 2 * SECOND + log_logistic(keyed_uniform(seed, Stream.FAVOURITE, *keys, 1), MINUTE, 1.5)
    everyone, nothing = np.ones(len(buys), bool), np.full(len(buys), np.nan)
    charge = np.where(clicks.domain == ADS, catalogue.bid[clicks.item], np.nan)

    def after(kind: int, mask: np.ndarray, delay: np.ndarray, amount: np.ndarray, moved: np.ndarray) -> Events:
        return Events(
            user=clicks.user[mask],
            item=clicks.item[mask],
            ts=(clicks.ts + delay.astype(np.int64))[mask],
            domain=np.where(moved, RECOMMENDATION, clicks.domain)[mask],
            type=np.full(int(mask.sum()), kind, np.int8),
            request=np.where(moved, -1, clicks.request)[mask],
            amount=amount[mask],
        )

    return join(
        [
            after(CLICK, everyone, np.zeros(len(buys)), charge, ~everyone),
            after(CART, puts, cart_delay + SECOND, nothing, ~everyone),
            after(FAVOURITE, likes, like_delay, nothing, ~everyone),
            after(PURCHASE, buys, purchase_delay, catalogue.price[clicks.item], elsewhere),
        ]
    )
