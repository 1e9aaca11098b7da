"""Stage 2: each rule on its own case, then all of them against a brute-force reference on random logs."""

import random
from collections import Counter

import pytest

from features.es3.attribution import attribute, bind_clicks, task_events
from features.es3.listwise import labelled
from tests.es3.conftest import RULES, at, clock
from tests.es3.reference import land
from uniscale.samples import LabelSource, Sampling

pytestmark = [pytest.mark.spark, pytest.mark.xdist_group("spark")]

IN, CLICKED, EXPOSED, UNEXPOSED = (
    LabelSource.IN_DOMAIN,
    LabelSource.CLICKED,
    LabelSource.EXPOSED,
    LabelSource.UNEXPOSED,
)
NOTHING = None

# name: samples (request, minute, "e"xposed or "u"nexposed), events (task, minute, "own" or "other", request named),
# and where each event lands (request, source). Every case has a user and an item of its own.
CASES = {
    "a click is bound to the exposure it names": (
        [("a", 0, "e"), ("b", 5, "e")],
        [("click", 10, "own", "a")],
        [("a", IN)],
    ),
    "a click of an item that its request did not show": ([("a", 0, "u")], [("click", 10, "own", "a")], [NOTHING]),
    "a click that names no request": ([("a", 0, "e")], [("click", 10, "own", None)], [NOTHING]),
    "a click at the window's edges": (
        [("a", 0, "e"), ("b", 500, "e")],
        [
            ("click", 100, "own", "a"),
            ("click", 100.0001, "own", "a"),
            ("click", 500, "own", "b"),
            ("click", 499.9, "own", "b"),
        ],
        [("a", IN), NOTHING, ("b", IN), NOTHING],
    ),
    "a click elsewhere: exposed goes before a later unexposed": (
        [("a", 0, "e"), ("b", 5, "u")],
        [("click", 10, "other", None)],
        [("a", EXPOSED)],
    ),
    "a click elsewhere: unexposed where nothing was exposed in the window": (
        [("a", 0, "e"), ("b", 90, "u")],
        [("click", 150, "other", None)],
        [("b", UNEXPOSED)],
    ),
    "a click elsewhere: the latest request, ties by its id": (
        [("a", 0, "e"), ("d", 5, "e"), ("c", 5, "e")],
        [("click", 10, "other", None)],
        [("d", EXPOSED)],
    ),
    "a click elsewhere: window edges, and never a later request": (
        [("a", 0, "e"), ("b", 300, "e")],
        [("click", 100, "other", None), ("click", 100.0001, "other", None), ("click", 300, "other", None)],
        [("a", EXPOSED), NOTHING, ("b", EXPOSED)],
    ),
    "a conversion: the last click in time, not the latest request": (
        [("a", 0, "e"), ("b", 20, "e")],
        [("click", 30, "own", "b"), ("click", 40, "own", "a"), ("conversion", 50, "own", None)],
        [("b", IN), ("a", IN), ("a", IN)],
    ),
    "a conversion without a click": ([("a", 0, "e")], [("conversion", 50, "own", "a")], [NOTHING]),
    "a conversion before the click": (
        [("a", 0, "e")],
        [("click", 30, "own", "a"), ("conversion", 20, "own", "a")],
        [("a", IN), NOTHING],
    ),
    "a conversion: its window counts from the request": (
        [("a", 0, "e")],
        [("click", 50, "own", "a"), ("conversion", 1000, "own", None), ("conversion", 1000.0001, "own", None)],
        [("a", IN), ("a", IN), NOTHING],
    ),
    "a conversion elsewhere: clicked goes before a later exposed": (
        [("a", 0, "e"), ("b", 60, "e"), ("c", 70, "u")],
        [("click", 50, "own", "a"), ("conversion", 90, "other", None)],
        [("a", IN), ("a", CLICKED)],
    ),
    "a conversion elsewhere: of two clicked the latest request, not the last click": (
        [("a", 0, "e"), ("b", 20, "e")],
        [("click", 30, "own", "b"), ("click", 40, "own", "a"), ("conversion", 50, "other", None)],
        [("b", IN), ("a", IN), ("b", CLICKED)],
    ),
    "a conversion elsewhere: exposed and not yet clicked": (
        [("a", 0, "e"), ("c", 10, "u")],
        [("conversion", 20, "other", None), ("click", 30, "own", "a")],
        [("a", EXPOSED), ("a", IN)],
    ),
    "a conversion elsewhere: unexposed": ([("a", 0, "u")], [("conversion", 20, "other", None)], [("a", UNEXPOSED)]),
    "a click elsewhere does not make a sample clicked": (
        [("a", 0, "e")],
        [("click", 10, "other", None), ("conversion", 20, "other", None)],
        [("a", EXPOSED), ("a", EXPOSED)],
    ),
    "a click elsewhere: unexposed too, the latest request, ties by its id": (
        [("a", 0, "u"), ("d", 5, "u"), ("c", 5, "u")],
        [("click", 10, "other", None)],
        [("d", UNEXPOSED)],
    ),
    "a click elsewhere: the edge of the window of an unexposed sample": (
        [("a", 0, "u")],
        [("click", 100, "other", None), ("click", 100.0001, "other", None)],
        [("a", UNEXPOSED), NOTHING],
    ),
    "a conversion: of clicks at one time the latest request, ties by its id": (
        [("a", 0, "e"), ("d", 5, "e"), ("c", 5, "e")],
        [
            ("click", 30, "own", "a"),
            ("click", 30, "own", "c"),
            ("click", 30, "own", "d"),
            ("conversion", 50, "own", None),
        ],
        [("a", IN), ("c", IN), ("d", IN), ("d", IN)],
    ),
    "a conversion: at the time of the click": (
        [("a", 0, "e")],
        [("click", 30, "own", "a"), ("conversion", 30, "own", None), ("conversion", 30, "other", None)],
        [("a", IN), ("a", IN), ("a", CLICKED)],
    ),
    "a conversion whose last click is too old, where an older click has a later request": (
        [("a", 0, "e"), ("b", 20, "e")],
        [("click", 30, "own", "b"), ("click", 40, "own", "a"), ("conversion", 1010, "own", None)],
        [("b", IN), ("a", IN), NOTHING],
    ),
    "a conversion elsewhere: of clicked requests at one time the greater id": (
        [("d", 5, "e"), ("c", 5, "e")],
        [("click", 30, "own", "c"), ("click", 20, "own", "d"), ("conversion", 50, "other", None)],
        [("c", IN), ("d", IN), ("d", CLICKED)],
    ),
    "a conversion elsewhere: the edge of each level, then the next": (
        [("a", 0, "e"), ("b", 10, "e"), ("c", 20, "u")],
        [
            ("click", 5, "own", "a"),
            ("conversion", 1000, "other", None),
            ("conversion", 1000.0001, "other", None),
            ("conversion", 1010, "other", None),
            ("conversion", 1010.0001, "other", None),
            ("conversion", 1020, "other", None),
            ("conversion", 1020.0001, "other", None),
        ],
        [("a", IN), ("a", CLICKED), ("b", EXPOSED), ("b", EXPOSED), ("c", UNEXPOSED), ("c", UNEXPOSED), NOTHING],
    ),
    "a conversion elsewhere that every level would take is credited once": (
        [("a", 0, "e"), ("a2", 0, "e"), ("b", 10, "e"), ("c", 20, "u"), ("c2", 20, "u")],
        [("click", 5, "own", "a"), ("click", 6, "own", "a2"), ("conversion", 50, "other", "c")],
        [("a", IN), ("a2", IN), ("a2", CLICKED)],
    ),
    "a click that names a request elsewhere is credited by level, not by name": (
        [("a", 0, "e"), ("b", 10, "e")],
        [("click", 20, "other", "a")],
        [("b", EXPOSED)],
    ),
    "an event of no task": ([("a", 0, "e")], [("favourite", 10, "other", None)], [NOTHING]),
}


def run(spark, samples, events, rules=RULES):
    """Landings of stage 2: a list of rows."""
    table = spark.createDataFrame(
        [(request, user, item, at(minute), int(sampling)) for request, user, item, minute, sampling in samples],
        "request_id string, user_id string, item_id string, asked long, sampling byte",
    )
    log = spark.createDataFrame(
        [
            (
                event,
                user,
                item,
                clock(minute),
                "search" if own else "feed",
                {"conversion": "purchase"}.get(task, task),
                request,
                clock(0).date(),
            )
            for event, task, user, item, minute, own, request in events
        ],
        "event_id string, user_id string, item_id string, ts timestamp, domain string, type string, "
        "request_id string, day date",
    )
    counted = task_events(log, rules)
    clicks = bind_clicks(table, counted, rules)
    others = attribute(table, clicks, counted, rules)
    return clicks.select(*others.columns).unionByName(others)


@pytest.fixture(scope="module")
def cases(spark):
    samples, events = [], []
    for number, (shown, acts, _) in enumerate(CASES.values()):
        user, item = f"u{number}", f"i{number}"
        kinds = {"e": Sampling.EXPOSED, "u": Sampling.UNEXPOSED}
        samples += [(f"{number}{request}", user, item, minute, kinds[kind]) for request, minute, kind in shown]
        events += [
            (
                f"{number}-{k}",
                task,
                user,
                item,
                minute,
                where == "own",
                None if request is None else f"{number}{request}",
            )
            for k, (task, minute, where, request) in enumerate(acts)
        ]
    rows = run(spark, samples, events).collect()
    assert len(rows) == len({row["event_id"] for row in rows})  # every event lands at most once
    return {row["event_id"]: (row["request_id"], row["source"]) for row in rows}


@pytest.mark.parametrize("name", CASES)
def test_rule(cases, name):
    number = list(CASES).index(name)
    expected = CASES[name][2]
    got = [cases.get(f"{number}-{k}") for k in range(len(expected))]
    assert got == [None if landing is None else (f"{number}{landing[0]}", landing[1]) for landing in expected]


def test_samples_of_another_user_or_item_earn_nothing(spark):
    samples = [("a", "u", "i", 0, Sampling.EXPOSED)]
    events = [
        ("e1", "click", "u", "j", 5, False, None),
        ("e2", "click", "v", "i", 5, False, None),
        ("e3", "click", "v", "i", 5, True, "a"),
    ]
    assert run(spark, samples, events).collect() == []


def test_events_on_one_sample_leave_one_label_of_the_best_source(spark):
    samples = [("a", "u", "i", 0, Sampling.EXPOSED), ("b", "u", "i", -5, Sampling.EXPOSED)]
    events = [
        ("e1", "click", "u", "i", 1, False, None),
        ("e2", "click", "u", "i", 2, True, "a"),
        ("e3", "click", "u", "i", 3, False, None),
    ]
    landings = run(spark, samples, events)
    assert Counter(row["request_id"] for row in landings.collect()) == {"a": 3}  # absorbed, not passed on to b
    lists = spark.createDataFrame(
        [(request, [("i", int(Sampling.EXPOSED), 1)]) for request in ("a", "b")],
        "request_id string, items array<struct<item_id:string,sampling:byte,position:smallint>>",
    )
    rows = labelled(lists, landings, list(RULES.tasks)).collect()
    sources = {
        row["request_id"]: (row["items"][0]["click_source"], row["items"][0]["conversion_source"]) for row in rows
    }
    assert sources == {"a": (IN, LabelSource.NONE), "b": (LabelSource.NONE, LabelSource.NONE)}


def random_log(seed):
    """Few users, items and minutes, so that levels, ties and window edges meet often."""
    rng = random.Random(seed)
    users, items = ["u", "v"], ["i", "j", "k"]
    samples = {}
    for number in range(40):
        user, minute = rng.choice(users), 50 * rng.randrange(40)
        for item in items:
            kind = rng.choice([Sampling.EXPOSED, Sampling.UNEXPOSED, None])
            if kind is not None:
                samples[f"r{number:02d}", item] = (f"r{number:02d}", user, item, minute, kind)
    events = []
    for number in range(120):
        request, item = rng.choice(list(samples))
        _, user, _, minute, _ = samples[request, item]
        own = rng.random() < 0.5
        task = rng.choice(["click", "conversion"])
        later = minute + rng.choice([0, 50, 100, 150, 500, 1000, 1050, -50])
        events.append((f"e{number}", task, user, item, later, own, request if own else None))
    return list(samples.values()), events


def test_random_logs_land_as_in_the_reference(spark):
    samples, events, expected = [], [], {}
    for seed in range(8):
        shown, acts = random_log(seed)

        def name(value, seed=seed):
            return None if value is None else f"{seed}:{value}"

        samples += [(name(r), name(u), i, minute, kind) for r, u, i, minute, kind in shown]
        events += [(name(e), task, name(u), i, minute, own, name(r)) for e, task, u, i, minute, own, r in acts]
        expected |= {name(e): (name(r), i, source) for e, (r, i, source) in land(shown, acts).items()}
    rows = run(spark, samples, events).repartition(3).collect()
    assert len(rows) == len({row["event_id"] for row in rows})  # every event lands at most once
    assert {row["event_id"]: (row["request_id"], row["item_id"], row["source"]) for row in rows} == expected
    assert set(Counter(source for _, _, source in expected.values())) == {IN, CLICKED, EXPOSED, UNEXPOSED}
