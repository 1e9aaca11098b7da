"""Lists, production ranking and feeds: what may be listed, in which order, and where feed items come from."""

import numpy as np
import pytest

from simulation import retrieval as retrieval_module
from simulation.behaviour import Needs
from simulation.feeds import Trail, _last_searches, _repeated, browse
from simulation.queries import Queries, phrase, texts
from simulation.retrieval import Production, Retrieval, best_columns, standardised
from simulation.traffic import Requests, day_of_requests, draw_items, on_sale
from simulation.world import ADS, DAY, RECOMMENDATION, SEARCH


@pytest.fixture(scope="module")
def tastes(world):
    return dict(world.tastes(range(3)))


@pytest.fixture(scope="module")
def searches(world, tastes):
    return day_of_requests(world, tastes[2], 2, (1.0, 0.0, 0.0))[SEARCH]


def plain_queries(nodes, brand=-1, attribute=-1):
    filled = np.full(len(nodes), -1)
    return Queries(np.array(nodes), filled + 1 + brand, filled + 1 + attribute, filled + 1, filled + 1)


def test_lists_hold_items_on_sale_in_order_of_their_scores(world, searches):
    queries = phrase(world, searches, np.zeros(len(searches), int))
    items, scores = Retrieval(world).lists(queries, searches.number, day=2)
    assert items.shape == (len(searches), world.config.candidates)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert on_sale(world, 2)[items].all() and not on_sale(world, 2).all()
    assert all(len(set(row)) == len(row) for row in items.tolist())


def test_lists_are_mostly_relevant(world, searches):
    queries = phrase(world, searches, np.ones(len(searches), int))  # reworded queries name the leaf
    items, _ = Retrieval(world).lists(queries, searches.number, day=2)
    mids = world.catalogue.mid_of(world.catalogue.leaf[items])
    assert (mids == world.catalogue.mid_of(searches.needs.leaf)[:, None]).mean() > 0.6
    assert (world.catalogue.leaf[items[:, 0]] == searches.needs.leaf).mean() > 0.9


def test_lists_do_not_depend_on_batches_or_chunks(world, searches, monkeypatch):
    queries = phrase(world, searches, np.zeros(len(searches), int))
    whole, _ = Retrieval(world).lists(queries, searches.number, day=2)
    monkeypatch.setattr(retrieval_module, "CHUNK_CELLS", 3 * world.config.items)
    other = Retrieval(world)
    row = len(searches) // 2
    part = Queries(*(getattr(queries, name)[row:] for name in ("node", "brand", "attribute", "phrasing", "scenario")))
    assert (other.lists(part, searches.number[row:], day=2)[0] == whole[row:]).all()
    assert (other.lists(queries, searches.number, day=2)[0] == whole).all()


def test_named_brand_comes_first(world):
    leaf, counts = np.unique(world.catalogue.leaf * 1000 + world.catalogue.brand, return_counts=True)
    leaf, brand = divmod(int(leaf[np.argmax(counts)]), 1000)
    items, _ = Retrieval(world).lists(plain_queries([leaf], brand=brand), np.array([0]), day=10**6)
    assert world.catalogue.brand[items[0, 0]] == brand and world.catalogue.leaf[items[0, 0]] == leaf


def test_query_texts_say_what_is_asked(world):
    leaves = len(world.catalogue.names)
    queries = Queries(
        node=np.array([0, 0, leaves, 0]),
        brand=np.array([2, -1, -1, -1]),
        attribute=np.array([1, 0, -1, -1]),
        phrasing=np.array([0, 3, 0, 6 + 5]),
        scenario=np.zeros(4, int),
    )
    first, brand = world.catalogue.names[0], world.catalogue.brands[2]
    singular = first[2].removesuffix("s")
    assert texts(world, queries).to_pylist() == [
        f"{brand} white {first[2]}",
        f"black {singular}",
        first[1],
        f"{first[2]} sale",
    ]


def test_standardised_rows_ignore_invalid_entries():
    values = np.array([[1.0, 3.0, 99.0], [5.0, 5.0, 5.0]])
    valid = np.array([[True, True, False], [True, True, True]])
    assert standardised(values, valid).tolist() == [[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_best_columns_leave_out_what_cannot_be_shown():
    scores = np.array([[0.1, 0.9, -np.inf, 0.5], [-np.inf, -np.inf, 2.0, -np.inf]])
    assert best_columns(scores, 3).tolist() == [[1, 3, 0], [2, -1, -1]]


def test_production_counts_clicks_and_forgets(world):
    production = Production(world)
    before = production.popularity()[4]
    production.learn(np.array([4, 4, 7]))
    production.learn(np.array([7]))
    assert production.popularity()[4] == pytest.approx(before + 2 * 0.97 / 5)
    assert production.clicks[7] == pytest.approx(1.97)


def test_draw_items_follows_weights_within_the_leaf(world):
    start = world.catalogue.leaf_start[3]
    weight = np.zeros(world.config.items)
    weight[start : start + 2] = 1.0, 3.0
    u = (np.arange(1000) + 0.5) / 1000
    drawn = draw_items(world, np.full(1000, 3), u, weight)
    assert (np.bincount(drawn, minlength=world.config.items)[[start, start + 1]] == [250, 750]).all()
    assert set(draw_items(world, np.full(9, 5), u[:9], weight)) <= {start, start + 1}  # a leaf without weight


def test_repeated_marks_all_but_the_first():
    assert _repeated(np.array([[4, 2, 4, 4], [1, 2, 3, 1]])).tolist() == [
        [False, False, True, True],
        [False, False, False, True],
    ]


def requests_at(world, domain, users, ts):
    count = len(users)
    nothing = np.full(count, -1)
    return Requests(
        domain,
        2,
        np.arange(count),
        np.array(users),
        np.array(ts),
        nothing + 1,
        np.zeros(count, bool),
        Needs(*(nothing,) * 3),
    )


def trail_of(world, user, ts, item):
    one = np.array([0])
    width, shown = world.config.candidates, world.config.exposed
    lists = np.arange(item, item + width)[None]
    return Trail(np.array([user]), np.array([ts]), Needs(one + 6, one - 1, one - 1), lists, lists[:, :shown])


def test_the_last_search_is_the_users_own_earlier_and_fresh(world):
    now = world.midnight(2) + DAY // 2
    trails = [trail_of(world, 5, now - 10, 0), trail_of(world, 5, now - 2 * DAY, 40), trail_of(world, 8, now - 7, 80)]
    asking = requests_at(world, RECOMMENDATION, [5, 5, 5, 8, 6, 5], [now, now - 10, now - 2 * DAY, now, now, now - 11])
    row, needs, (items, _) = _last_searches(world, trails, asking)
    first = np.where(row >= 0, items[row, 0], -1)
    assert first.tolist() == [0, 40, -1, 80, -1, 40]
    assert needs.leaf.tolist() == [6, 6, -1, 6, -1, 6]


def test_feeds_bring_back_searched_items_and_ads_show_advertised_ones(world, tastes):
    now = world.midnight(2) + DAY // 2
    users = np.arange(200)
    listed = set(range(100, 100 + world.config.candidates))
    trails = [trail_of(world, user, now - 100, 100) for user in users[:100]]
    shares = {}
    for domain in (RECOMMENDATION, ADS):
        page, clicks = browse(
            world, tastes[2], Production(world), trails, requests_at(world, domain, users, [now] * 200)
        )
        assert on_sale(world, 2)[page.items[page.visible]].all()
        pages = [row[seen].tolist() for row, seen in zip(page.items, page.visible, strict=True)]
        assert all(len(set(items)) == len(items) for items in pages)
        back = [np.mean([item in listed for item in items]) for items in pages]
        shares[domain] = np.mean(back[:100]), np.mean(back[100:])
        assert len(clicks.user) == page.clicked.sum()
    assert shares[RECOMMENDATION][0] > 0.3 > 0.15 > shares[RECOMMENDATION][1]
    assert (world.catalogue.bid[page.items[page.visible]] > 0).all()


def test_a_day_without_any_search_still_has_feeds(world, tastes):
    nobody, requests = np.array([], int), requests_at(world, RECOMMENDATION, [1, 2], [world.midnight(2)] * 2)
    trail = Trail(nobody, nobody, Needs(nobody, nobody, nobody), nobody.reshape(0, 30), nobody.reshape(0, 6))
    page, _ = browse(world, tastes[2], Production(world), [trail], requests)
    assert page.visible.all()
