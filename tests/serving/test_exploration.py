"""Drawn orders have the propensities on record: by hand for three items, by simulation for their whole distribution."""

from collections import Counter
from itertools import permutations

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.engine import Ranking
from serving.exploration import explore
from tests.serving.test_ranker import ask, engine, make_ranker, rows  # noqa: F401
from uniscale.assignment import assign
from uniscale.sections import ExplorationConfig

OFF = ExplorationConfig(policy="none", temperature=1.0, epsilon=0.3, positions=10)
DRAWS = 20_000


def config(**changes):
    return OFF.model_copy(update=changes)


def ranking(*scores):
    return Ranking([f"i{place}" for place in range(len(scores))], np.array(scores, np.float32), [])


def test_off_is_the_greedy_order_without_propensities():
    given = ranking(0.5, 0.3)
    assert explore(given, OFF, np.random.default_rng(0)) is given and given.propensities is None


# Scores 0.6, 0.3, 0.1: Plackett-Luce draws first by score over 1, then by score over what is left.
PLACKETT_LUCE = {
    ("i0", "i1", "i2"): [0.6, 0.3 / 0.4, 1],
    ("i0", "i2", "i1"): [0.6, 0.1 / 0.4, 1],
    ("i1", "i0", "i2"): [0.3, 0.6 / 0.7, 1],
    ("i1", "i2", "i0"): [0.3, 0.1 / 0.7, 1],
    ("i2", "i0", "i1"): [0.1, 0.6 / 0.9, 1],
    ("i2", "i1", "i0"): [0.1, 0.3 / 0.9, 1],
}
# ε = 0.3: the best of n left has 0.7 + 0.3/n, any other 0.3/n.
EPSILON_GREEDY = {
    ("i0", "i1", "i2"): [0.8, 0.85, 1],
    ("i0", "i2", "i1"): [0.8, 0.15, 1],
    ("i1", "i0", "i2"): [0.1, 0.85, 1],
    ("i1", "i2", "i0"): [0.1, 0.15, 1],
    ("i2", "i0", "i1"): [0.1, 0.85, 1],
    ("i2", "i1", "i0"): [0.1, 0.15, 1],
}


@pytest.mark.parametrize(("policy", "expected"), [("plackett_luce", PLACKETT_LUCE), ("epsilon_greedy", EPSILON_GREEDY)])
def test_propensities_are_those_by_hand_and_orders_come_as_often_as_they_say(policy, expected):
    rng, given, settings = np.random.default_rng(7), ranking(0.6, 0.3, 0.1), config(policy=policy)
    drawn = [explore(given, settings, rng) for _ in range(DRAWS)]
    orders = [tuple(one.item_ids) for one in drawn]
    np.testing.assert_allclose([one.propensities for one in drawn], [expected[order] for order in orders], rtol=1e-6)
    found = Counter(orders)
    for order in permutations(["i0", "i1", "i2"]):
        chance = float(np.prod(expected[order]))
        assert abs(found[order] / DRAWS - chance) < 4 * np.sqrt(chance * (1 - chance) / DRAWS)


@pytest.mark.parametrize("policy", ["plackett_luce", "epsilon_greedy"])
def test_inverse_propensities_sum_to_every_item_at_the_first_position(policy):
    """E[1[i first] / P(i first)] = 1 for each item: the identity that off-policy estimates rest on."""
    rng, weight = np.random.default_rng(1), Counter()
    given, settings = ranking(0.4, 0.3, 0.2, 0.1), config(policy=policy)
    for _ in range(DRAWS):
        drawn = explore(given, settings, rng)
        weight[drawn.item_ids[0]] += 1 / drawn.propensities[0] / DRAWS
    for place in range(4):
        assert weight[f"i{place}"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("policy", ["plackett_luce", "epsilon_greedy"])
def test_below_the_drawn_positions_the_order_is_greedy_and_unknown_items_stay_last(policy):
    given = Ranking(list("abcdexy"), np.array([0.5, 0.4, 0.3, 0.2, 0.1, np.nan, np.nan], np.float32), ["x", "y"])
    rng = np.random.default_rng(3)
    for _ in range(50):
        drawn = explore(given, config(policy=policy, positions=2), rng)
        assert sorted(drawn.item_ids) == sorted(given.item_ids) and drawn.item_ids[-2:] == ["x", "y"]
        assert list(drawn.item_ids[2:5]) == sorted(drawn.item_ids[2:5]) and (drawn.propensities[2:] == 1).all()
        score = dict(zip(given.item_ids, given.scores, strict=True))
        assert np.array_equal([score[item] for item in drawn.item_ids], drawn.scores, equal_nan=True)
        assert drawn.unknown == ["x", "y"]


def test_extremes(engine):  # noqa: F811
    rng = np.random.default_rng(0)
    cold = explore(ranking(0.6, 0.3, 0.1), config(policy="plackett_luce", temperature=1e-3), rng)
    assert cold.item_ids == ["i0", "i1", "i2"] and cold.propensities == pytest.approx([1, 1, 1])
    never = explore(ranking(0.6, 0.3), config(policy="epsilon_greedy", epsilon=0.0), rng)
    assert never.item_ids == ["i0", "i1"] and never.propensities.tolist() == [1, 1]
    zero = explore(ranking(0.6, 0.0), config(policy="plackett_luce"), rng)
    assert np.isfinite(zero.propensities).all()
    nothing_known = explore(ranking(np.nan), config(policy="plackett_luce"), rng)
    assert nothing_known.propensities.tolist() == [1]


def test_the_log_holds_the_propensities_of_what_was_answered(engine, tmp_path):  # noqa: F811
    policy = config(policy="epsilon_greedy", epsilon=1.0, positions=2)
    service, users = make_ranker(engine, tmp_path, rng=np.random.default_rng(0), exploration=policy)
    answer = ask(service, item_ids=["i1", "i2", "i3", "i4"], top_k=3).body
    users.error = RuntimeError("a fallback is not drawn")
    ask(service)
    service.close()
    drawn, fallback = rows(tmp_path)
    assert drawn["item_ids"] == [item["item_id"] for item in answer["items"]]
    assert drawn["propensities"] == pytest.approx([1 / 4, 1 / 3, 1]) and fallback["propensities"] is None


def test_shadows_are_scored_and_logged_but_never_shown(engine, tmp_path):  # noqa: F811
    """The shadow holds version 2's model: users of version 1 do not notice it, users of version 2 saw its order."""
    service, _ = make_ranker(engine, tmp_path / "with", shadow=engine[1]["2"])
    plain, _ = make_ranker(engine, tmp_path / "without")
    weights = service.switch.current.routing.weights
    users = {assign(f"u{number}", "salt", weights): f"u{number}" for number in range(30)}
    shown = {}
    for variant, user in users.items():
        asked = {"user_id": user, "item_ids": ["i1", "i2", "i3", "new"], "request_id": variant}
        shown[variant], alone = ask(service, **asked).body, ask(plain, **asked).body
        assert {**shown[variant], "latency_ms": 0} == {**alone, "latency_ms": 0}
        service._shadows._executor._pool.submit(int).result()  # the one thread has come to the end of its queue
    service.close()
    plain.close()
    scored = {row["request_id"]: row for row in rows(tmp_path / "with" / "_shadows")}
    assert {(row["variant"], row["version"]) for row in scored.values()} == {("next", "s")}
    seen = shown["candidate"]["items"]
    assert scored["candidate"]["item_ids"] == [item["item_id"] for item in seen]
    assert scored["candidate"]["scores"] == pytest.approx([item["score"] for item in seen])
    assert scored["champion"]["scores"] != pytest.approx([item["score"] for item in shown["champion"]["items"]])
    hashes = {row["request_id"]: row["features_hash"] for row in rows(tmp_path / "with")}
    assert hashes == {name: row["features_hash"] for name, row in scored.items()}
    assert not (tmp_path / "without" / "_shadows").exists()


class Failing:
    def score(self, batch, history=None):
        raise ZeroDivisionError("a defect of the shadow")


def test_a_shadow_that_fails_harms_nobody_and_is_counted(engine, tmp_path, caplog):  # noqa: F811
    service, _ = make_ranker(engine, tmp_path, shadow=Failing())
    answer = ask(service)
    assert answer.status == 200 and answer.body["fallback"] is None
    service._shadows._executor._pool.shutdown(wait=True)
    assert "a defect of the shadow" in caplog.text
    assert 'uniscale_shadows_total{outcome="failed"}' in service.telemetry.exposition().decode()
    service.close()
    assert not list((tmp_path / "_shadows").glob("day=*/*.parquet")) and len(rows(tmp_path)) == 1


def test_shadows_wait_for_nobody(engine, tmp_path):  # noqa: F811
    """While users' requests are in work, a shadow is dropped and counted."""
    service, _ = make_ranker(engine, tmp_path, shadow=Failing())
    service._executor._in_work = 1
    ask(service)
    service._executor._in_work = 0
    service.close()
    assert 'uniscale_shadows_total{outcome="dropped"}' in service.telemetry.exposition().decode()


def test_files_of_both_logs_can_be_read_as_one_table_each(engine, tmp_path):  # noqa: F811
    from uniscale.serving_log import SCHEMA

    service, _ = make_ranker(engine, tmp_path, shadow=engine[1]["1"])
    ask(service)
    service.close()
    (file,) = tmp_path.glob("day=*/*.parquet")
    assert pq.ParquetFile(file).schema_arrow.equals(SCHEMA)
