"""Stage 3: which clicks become pseudo-requests, with which negatives, conversions and query."""

import numpy as np
import pytest

from features.es3 import corpus, queries, searchify
from features.es3.attribution import task_events
from tests.es3.conftest import RULES, at, clock
from uniscale.samples import LabelSource, QueryRule, Sampling

pytestmark = [pytest.mark.spark, pytest.mark.xdist_group("spark")]

EVENTS = (
    "event_id string, user_id string, item_id string, ts timestamp, domain string, type string, request_id string, "
    "day date"
)
REQUESTS = "request_id string, domain string, user_id string, ts timestamp, query string, scenario array<string>"


def log_events(spark, rows):
    """Rows of (event, user, item, minute, domain, type, request)."""
    day = clock(0).date()
    return task_events(
        spark.createDataFrame([(e, u, i, clock(m), d, t, r, day) for e, u, i, m, d, t, r in rows], EVENTS), RULES
    )


@pytest.fixture(scope="module")
def requests(spark):
    rows = [
        ("f0", "feed", "u", clock(5), None, ["morning"]),
        ("f1", "feed", "u", clock(10), None, ["home"]),
        ("f3", "feed", "u", clock(150), None, ["evening"]),
        ("s1", "search", "u", clock(190), "shoes", ["promotion"]),
        ("f2", "feed", "u", clock(500), None, ["home"]),
    ]
    return spark.createDataFrame(rows, REQUESTS)


@pytest.fixture(scope="module")
def clicks(spark, requests):
    events = log_events(
        spark,
        [
            ("landed", "u", "a", 12, "feed", "click", "f1"),
            ("first", "u", "b", 14, "feed", "click", "f1"),
            ("again", "u", "b", 15, "feed", "click", "f1"),
            ("second", "u", "c", 16, "feed", "click", "f1"),
            ("late", "u", "d", 111, "feed", "click", "f1"),
            ("free", "u", "e", 200, "feed", "click", None),
            ("edge", "u", "e", 250, "feed", "click", None),
            ("stale", "u", "e", 251, "feed", "click", None),
            ("elsewhere", "u", "e", 200, "ads", "click", None),
            ("stranger", "v", "b", 20, "feed", "click", "f1"),
            ("bought", "u", "b", 30, "feed", "purchase", "f1"),
            ("searched", "u", "b", 30, "search", "click", "f1"),
        ],
    )
    landings = spark.createDataFrame([("landed",)], "event_id string")
    return {r["event_id"]: r for r in searchify.unclaimed_clicks(events, landings, requests, RULES).collect()}


def test_only_clicks_outside_search_that_no_sample_earned_are_taken(clicks):
    assert set(clicks) == {"first", "second", "free", "edge", "stale", "elsewhere", "stranger"}


def test_a_second_click_on_the_item_of_a_request_is_a_repeat(clicks):
    assert clicks["first"]["repeats"] == 1 and clicks["second"]["repeats"] == 0


def test_a_pseudo_request_stands_at_the_time_of_the_request_it_was_made_in(clicks):
    first = clicks["first"]
    assert (first["request_id"], first["asked"], first["at"]) == ("pseudo:first", at(10), at(14))
    assert (first["domain"], first["scenario"]) == ("feed", ["home"])


def test_a_click_that_names_no_request_of_its_user_stands_at_its_own_time(clicks):
    assert clicks["free"]["asked"] == at(200) and clicks["free"]["event_request"] is None
    assert clicks["stranger"]["asked"] == at(20)


def test_its_context_is_that_of_the_users_last_request_in_the_domain(clicks):
    for placed in ("free", "edge"):  # of f3, up to the window after it, and not of f2, which is later
        assert (clicks[placed]["scenario"], clicks[placed]["placed"]) == (["evening"], True)
    for without in ("elsewhere", "stranger", "stale"):  # no request of this user in this domain within the window
        assert (clicks[without]["scenario"], clicks[without]["placed"]) == (None, False)


@pytest.fixture(scope="module")
def lists(spark):
    pseudo = spark.createDataFrame(
        [("p1", "f1", "a"), ("p2", "f2", "a"), ("p3", None, "a"), ("p4", "f4", "blank")],
        "request_id string, event_request string, item_id string",
    )
    shown = {
        "f1": ["a", "same", "near", "tie1", "tie2", "far", "clicked", "blank"],
        "f2": ["far", "a"],
        "f4": ["blank", "a"],
    }
    exposures = spark.createDataFrame(
        [(request, item, place + 1) for request, items in shown.items() for place, item in enumerate(items)],
        "request_id string, item_id string, position int",
    )
    vectors = {
        "a": [1, 0],
        "same": [2, 0],
        "near": [3, 1],
        "tie1": [1, 1],
        "tie2": [1, 1],
        "far": [0, 1],
        "clicked": [1, 0],
        "blank": [0, 0],
    }
    content = spark.createDataFrame(
        [(item, [float(x) for x in vector]) for item, vector in vectors.items()], "item_id string, content array<float>"
    )
    events = log_events(spark, [("e", "u", "clicked", 1, "feed", "click", "f1")])
    rows = searchify.pseudo_lists(pseudo, exposures, events, content, most=3, floor=0.5).collect()
    return {row["request_id"]: [tuple(item) for item in row["items"]] for row in rows}


def test_negatives_are_the_most_similar_unclicked_items_of_the_request(lists):
    positive, negative = int(Sampling.PSEUDO_POSITIVE), int(Sampling.PSEUDO_NEGATIVE)
    assert lists["p1"] == [("a", positive, 1), ("same", negative, 2), ("near", negative, 3), ("tie1", negative, 4)]


def test_no_similar_item_no_negative(lists):
    assert lists["p2"] == [("a", int(Sampling.PSEUDO_POSITIVE), 2)]
    assert lists["p3"] == [("a", int(Sampling.PSEUDO_POSITIVE), 0)]


def test_an_item_without_an_embedding_resembles_nothing(lists):
    assert lists["p4"] == [("blank", int(Sampling.PSEUDO_POSITIVE), 1)]


def test_a_conversion_goes_to_the_latest_pseudo_click_before_it(spark):
    pseudo = spark.createDataFrame(
        [("p1", "u", "a", at(10), at(0)), ("p2", "u", "a", at(20), at(15)), ("p3", "u", "b", at(20), at(0))],
        "request_id string, user_id string, item_id string, at long, asked long",
    )
    events = log_events(
        spark,
        [
            ("early", "u", "a", 5, "feed", "purchase", None),
            ("one", "u", "a", 15, "feed", "purchase", None),
            ("two", "u", "a", 30, "search", "purchase", None),
            ("taken", "u", "a", 30, "feed", "purchase", None),
            ("edge", "u", "b", 1000, "feed", "purchase", None),
            ("past", "u", "b", 1000.0001, "feed", "purchase", None),
            ("other", "v", "a", 30, "feed", "purchase", None),
        ],
    )
    landings = spark.createDataFrame([("taken", "conversion")], "event_id string, task string")
    rows = searchify.pseudo_conversions(pseudo, events, landings, RULES).collect()
    assert {row["event_id"]: row["request_id"] for row in rows} == {"one": "p1", "two": "p2", "edge": "p3"}
    assert {row["source"] for row in rows} == {int(LabelSource.PSEUDO)}


@pytest.fixture(scope="module")
def chosen(spark, tmp_path_factory):
    """Searches for items a and b, then pseudo-requests at several times; c and d were never found by search."""
    asked = [
        ("s1", "u", 0, "own old"),
        ("s2", "u", 10, "own new"),
        ("s3", "v", 20, "common"),
        ("s4", "w", 30, "common"),
        ("s5", "v", 40, "rare"),
        ("s6", "v", 100, "red shoe"),
        ("s7", "v", 200, "green shoe"),
    ]
    searches = spark.createDataFrame([(r, "search", u, clock(m), q, []) for r, u, m, q in asked], REQUESTS)
    events = log_events(
        spark,
        [
            ("e1", "u", "a", 1, "search", "click", "s1"),
            ("e2", "u", "a", 11, "search", "click", "s2"),
            ("e3", "v", "a", 21, "search", "click", "s3"),
            ("e4", "w", "a", 31, "search", "click", "s4"),
            ("e5", "v", "a", 41, "search", "click", "s5"),
            ("e6", "v", "a", 42, "feed", "click", None),
            ("e7", "v", "b", 43, "search", "purchase", "s5"),
        ],
    )
    pseudo = [
        ("own", "u", "a", 50),
        ("own at the click", "u", "a", 11),
        ("common", "x", "a", 50),
        ("tie", "x", "a", 25),
        ("before any", "x", "a", 1),
        ("nearest", "x", "c", 150),
        ("nearest later", "x", "c", 250),
        ("unlike", "x", "d", 250),
    ]
    table = spark.createDataFrame(
        [(r, u, i, at(m)) for r, u, i, m in pseudo], "request_id string, user_id string, item_id string, asked long"
    )
    past = queries.past_queries(table, queries.search_clicks(events, searches, RULES))
    known = {"common": (20, [0.0, 1.0]), "red shoe": (100, [0.8, 0.6]), "green shoe": (200, [1.0, 0.0])}
    folder = tmp_path_factory.mktemp("ann")
    vectors = np.array([vector for _, vector in known.values()], np.float32)
    corpus.write_block(folder, 0, vectors, np.array([at(minute) for minute, _ in known.values()]))
    titles = spark.createDataFrame(
        [("c", [1.0, 0.0]), ("d", [-1.0, 0.0]), ("a", [0.0, 1.0])], "item_id string, text array<float>"
    )
    orphans = past.where("own is null and common is null").join(table, "request_id").join(titles, "item_id")
    rows_of = spark.createDataFrame(list(enumerate(known)), "query_row long, query string")
    rows = queries.choose(table, past, corpus.nearest_queries(orphans, folder), rows_of).collect()
    return {row["request_id"]: (row["query"], row["query_rule"]) for row in rows}


@pytest.mark.parametrize(
    ("request_id", "query", "rule"),
    [
        ("own", "own new", QueryRule.OWN_HISTORY),  # the last of the user's two, though "common" is commoner
        ("own at the click", "own old", QueryRule.OWN_HISTORY),  # strictly before: the click at 11 is not yet known
        ("common", "common", QueryRule.CO_OCCURRENCE),
        ("tie", "common", QueryRule.CO_OCCURRENCE),  # three queries with one click each: the one clicked last
        ("before any", None, None),  # "common" is like its title, and was first typed at 20
        ("nearest", "red shoe", QueryRule.NEAREST),  # "green shoe" is nearer, and was first typed at 200
        ("nearest later", "green shoe", QueryRule.NEAREST),
        ("unlike", None, None),
    ],
)
def test_query_rule(chosen, request_id, query, rule):
    assert chosen[request_id] == (query, rule)
