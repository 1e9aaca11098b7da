"""Stage 1: exposed and unexposed samples."""

from collections import Counter

import pytest
from pyspark.sql import functions as F

from features.es3.intra import add_unexposed, exposed_lists
from uniscale.samples import Sampling

pytestmark = [pytest.mark.spark, pytest.mark.xdist_group("spark")]
REQUESTS, CANDIDATES, EXPOSED = 400, 30, 3


@pytest.fixture(scope="module")
def lists(spark):
    """Requests that show items 0, 1, 2 of 30 candidates; "short" has two further candidates, "none" has no list."""
    ids = [f"r{number}" for number in range(REQUESTS)]
    requests = spark.createDataFrame([(name,) for name in (*ids, "short", "none", "unseen")], "request_id string")
    shown = [(name, f"i{item}", EXPOSED - item) for name in (*ids, "short", "none") for item in range(EXPOSED)]
    exposures = spark.createDataFrame(shown, "request_id string, item_id string, position int")
    pools = [(name, [f"i{item}" for item in range(CANDIDATES)]) for name in ids]
    pools.append(("short", ["i0", "i1", "i2", "a", "a", "b"]))
    candidates = spark.createDataFrame(pools, "request_id string, item_ids array<string>")
    return exposed_lists(requests, exposures), candidates


def draw(lists, partitions, seed=1, per_exposed=2):
    exposed, candidates = lists
    drawn = add_unexposed(exposed.repartition(partitions), candidates.repartition(partitions), per_exposed, seed)
    return {row["request_id"]: row for row in drawn.collect()}


@pytest.fixture(scope="module")
def drawn(lists):
    return draw(lists, 1)


def unexposed(row):
    return [item["item_id"] for item in row["items"] if item["sampling"] == Sampling.UNEXPOSED]


def test_exposed_items_come_first_in_shown_order(drawn):
    items = drawn["r0"]["items"]
    assert [(i["item_id"], i["position"]) for i in items[:EXPOSED]] == [("i2", 1), ("i1", 2), ("i0", 3)]
    assert {i["sampling"] for i in items[:EXPOSED]} == {Sampling.EXPOSED}
    assert {i["position"] for i in items[EXPOSED:]} == {0}


def test_a_request_without_exposures_makes_no_sample(drawn):
    assert "unseen" not in drawn and len(drawn) == REQUESTS + 2


def test_the_draw_is_without_replacement_and_disjoint_from_the_exposed(drawn):
    for number in range(REQUESTS):
        items = unexposed(drawn[f"r{number}"])
        assert len(items) == len(set(items)) == 2 * EXPOSED
        assert not set(items) & {"i0", "i1", "i2"}


def test_the_draw_is_uniform(drawn):
    counts = Counter(item for number in range(REQUESTS) for item in unexposed(drawn[f"r{number}"]))
    expected = REQUESTS * 2 * EXPOSED / (CANDIDATES - EXPOSED)
    assert len(counts) == CANDIDATES - EXPOSED
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 48.3  # 99.5 % point at 26 degrees of freedom, which the draw without replacement stays under


def test_a_short_list_gives_all_it_has_once_and_says_how_much_is_missing(drawn):
    assert sorted(unexposed(drawn["short"])) == ["a", "b"]
    assert drawn["short"]["shortage"] == 4
    assert unexposed(drawn["none"]) == [] and drawn["none"]["shortage"] == 6
    assert drawn["r0"]["shortage"] == 0


@pytest.mark.parametrize("partitions", [3, 7])
def test_partitioning_does_not_change_the_draw(lists, drawn, partitions):
    assert draw(lists, partitions) == drawn


def test_the_seed_changes_the_draw(lists, drawn):
    other = draw(lists, 2, seed=2)
    assert sum(unexposed(other[name]) != unexposed(drawn[name]) for name in drawn) > REQUESTS / 2


def test_a_multiple_of_nought_draws_nothing(lists):
    assert all(unexposed(row) == [] and row["shortage"] == 0 for row in draw(lists, 1, per_exposed=0).values())


def test_a_list_just_long_enough_falls_back_to_a_uniform_order(spark):
    """8 wanted of 9: rejection rarely finds 8 different ones in its draws, so most requests sort by a hash."""
    ids = [f"r{number}" for number in range(300)]
    requests = spark.createDataFrame([(name,) for name in ids], "request_id string")
    exposures = spark.createDataFrame(
        [(name, "shown", 1) for name in ids], "request_id string, item_id string, position int"
    )
    pool = F.array(F.lit("shown"), *(F.lit(f"i{number}") for number in range(9)))
    lists = exposed_lists(requests, exposures)
    rows = add_unexposed(lists, requests.withColumn("item_ids", pool), 8, seed=3).collect()
    left_out = Counter(item for row in rows for item in {f"i{number}" for number in range(9)} - set(unexposed(row)))
    assert all(len(set(unexposed(row))) == 8 for row in rows)
    assert sum((left_out[f"i{number}"] - 300 / 9) ** 2 / (300 / 9) for number in range(9)) < 22  # 99.5 %, 8 degrees
