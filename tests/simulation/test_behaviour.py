"""The equations of users, recomputed by hand on a marketplace small enough to read."""

from dataclasses import replace

import numpy as np
import pytest

from simulation.behaviour import (
    CLICK_WEIGHTS,
    PURCHASE_WEIGHTS,
    Needs,
    Signals,
    attraction,
    examination,
    purchase,
    signals,
    utility,
)
from simulation.followups import Clicks, consequences
from simulation.world import ADS, CART, CLICK, DAY, DOMAINS, PURCHASE, RECOMMENDATION, SEARCH


def logistic(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("domain", range(3))
def test_attraction_is_the_logistic_of_the_weighted_signals(domain):
    # relevance, interest, taste, price, quality, appeal, promotion
    s = Signals(*(np.full((1, 1), value) for value in (1.5, 0.4, -0.7, 1.2, 0.3, -1.1, 1.0)))
    w = CLICK_WEIGHTS[domain]
    by_hand = w.bias + w.promotion - 1.2 * w.price
    by_hand += 1.5 * w.relevance + 0.4 * w.interest - 0.7 * w.taste + 0.3 * w.quality - 1.1 * w.appeal
    assert attraction(domain, s)[0, 0] == pytest.approx(logistic(by_hand))


def test_domains_weigh_the_same_item_differently():
    orders = set()
    rng = np.random.default_rng(0)
    names = ("relevance", "interest", "taste", "price", "quality", "appeal")
    s = Signals(*(rng.normal(size=(1, 30)) for _ in names), promotion=np.zeros((1, 30)))
    for weights in CLICK_WEIGHTS:
        orders.add(tuple(np.argsort(-utility(weights, s)[0])))
    assert len(orders) == len(DOMAINS)
    assert PURCHASE_WEIGHTS.appeal == 0 and (purchase(s) == purchase(replace(s, appeal=s.appeal + 5))).all()


def test_examination_decays_by_position_and_device():
    seen = examination(SEARCH, np.array([0, 1]), 4)  # mobile, desktop
    assert seen[0] == pytest.approx([1.0, 2**-0.6, 3**-0.6, 4**-0.6])
    assert seen[1] == pytest.approx([1.0, 2**-0.4, 3**-0.4, 4**-0.4])
    assert examination(RECOMMENDATION, np.array([0]), 1)[0, 0] == 0.9
    assert examination(ADS, np.array([0]), 1)[0, 0] == 0.7


def needs_of(world, item, brand=True, attribute=True):
    c = world.catalogue
    return Needs(
        np.array([c.leaf[item]]),
        np.array([c.brand[item] if brand else -1]),
        np.array([c.attributes[item, 1] if attribute else -1]),
    )


def test_relevance_adds_category_brand_and_attribute(world):
    (tastes,) = [tastes for _, tastes in world.tastes(range(1))]
    user, plain, c = np.array([0]), np.array([False]), world.catalogue
    everything = np.arange(world.config.items)[None]
    item = 100
    full = signals(world, tastes, user, needs_of(world, item), plain, everything).relevance[0]
    assert full[item] == pytest.approx(1.9) and full.max() == pytest.approx(1.9)
    category = signals(world, tastes, user, needs_of(world, item, False, False), plain, everything).relevance[0]
    assert (
        category == np.where(c.leaf == c.leaf[item], 1.0, np.where(c.mid_of(c.leaf) == c.mid_of(c.leaf[item]), 0.4, 0))
    ).all()
    assert ((full > 0) == (category > 0)).all()  # brand and attribute alone make nothing relevant
    nothing = Needs(*(np.array([-1]),) * 3)
    assert (signals(world, tastes, user, nothing, plain, everything).relevance == 0).all()


def test_taste_price_and_interest_signals(world):
    (tastes,) = [tastes for _, tastes in world.tastes(range(1))]
    c, people = world.catalogue, world.population
    users, items = np.array([3, 9]), np.array([[5, 80], [200, 5]])
    nothing = Needs(*(np.array([-1, -1]),) * 3)
    s = signals(world, tastes, users, nothing, np.array([False, True]), items)
    for row, user in enumerate(users):
        for column, item in enumerate(items[row]):
            taste = tastes.style[user] @ c.embedding[item] / world.taste_scale
            price = people.price_sensitivity[user] * c.relative_price[item] * (1.0, 1.4)[row]
            near = [
                1.0 if c.leaf[item] == leaf else 0.3 if c.mid_of(c.leaf[item]) == c.mid_of(leaf) else 0.0
                for leaf in tastes.interests[user]
            ]
            assert s.taste[row, column] == pytest.approx(taste, rel=1e-4)
            assert s.price[row, column] == pytest.approx(price)
            assert s.interest[row, column] == pytest.approx(tastes.weights[user] @ near)


def test_tastes_drift_slowly(world):
    days = dict(world.tastes(range(0, 30)))
    similarity = [np.einsum("ud,ud->u", days[0].style, days[day].style).mean() for day in (1, 10, 29)]
    assert 1 > similarity[0] > similarity[1] > similarity[2] > 0.5
    kept = (days[0].interests == days[29].interests).mean()
    assert 0.7 < kept < 0.95  # one of four interests changes with probability 0.02 a day: 0.995^29 = 0.86
    assert all(len(set(row)) == len(row) for row in days[29].interests.tolist())
    assert days[29].weights.sum(1) == pytest.approx(1.0)
    (again,) = [tastes for _, tastes in world.tastes(range(29, 30))]
    assert (again.style == days[29].style).all()


def test_consequences_of_clicks(world):
    count = 20_000
    rng = np.random.default_rng(5)
    clicks = Clicks(
        user=rng.integers(0, world.config.users, count),
        item=rng.integers(0, world.config.items, count),
        ts=np.full(count, world.midnight(0)),
        domain=np.repeat([SEARCH, ADS], count // 2).astype(np.int8),
        request=np.arange(count),
        key=np.arange(count),
        buy=np.full(count, 0.25),
    )
    events = consequences(world, clicks)
    made = events.where(events.type == CLICK)
    assert (made.ts == clicks.ts).all() and (made.item == clicks.item).all()
    assert np.isnan(made.amount[: count // 2]).all() and made.amount[count // 2 :] == pytest.approx(
        world.catalogue.bid[clicks.item[count // 2 :]]
    )
    bought = events.where(events.type == PURCHASE)
    assert abs(len(bought) - 0.25 * count) < 4 * np.sqrt(count * 0.25 * 0.75)
    assert bought.amount == pytest.approx(world.catalogue.price[bought.item])
    delay = (bought.ts - clicks.ts[0]) / DAY
    assert delay.min() > 0 and abs(np.median(delay) * 24 - 2) < 0.2 and (delay > 1).mean() > 0.03
    moved = bought.where(bought.request < 0)
    assert (moved.domain == RECOMMENDATION).all()
    share = len(moved) / (bought.request < count // 2).sum()
    assert abs(share - 0.3) < 0.05
    assert (events.ts > clicks.ts[0])[events.type != CLICK].all()
    # a buyer's cart lies between click and purchase
    carts = events.where(events.type == CART)
    paid = dict(zip(bought.user * 10**6 + bought.item, bought.ts, strict=True))
    before = [ts <= paid[key] for key, ts in zip(carts.user * 10**6 + carts.item, carts.ts, strict=True) if key in paid]
    assert np.mean(before) > 0.95  # the same user may have clicked the item twice
