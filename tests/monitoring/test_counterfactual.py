"""Off-policy estimates: by hand, unbiased over every draw, covering by simulation, and refused without support."""

import itertools
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.experiments import off_policy
from benchmarks.simulated_users import WANTED, clicks_at, drawn_orders, plackett_luce
from monitoring.counterfactual import Draws, estimate, weights
from monitoring.counterfactual_logs import judge_orders
from tests.monitoring.ab_logs import DESCRIPTION, START
from uniscale.errors import DataError
from uniscale.serving_log import SCHEMA, SHADOW_SCHEMA


def test_weights_by_hand():
    shown, wanted = np.array([[1, 2], [1, 3], [2, 1]]), np.tile(WANTED, (3, 1))
    draws = Draws(np.arange(3), shown, wanted, np.array([[0.5, 0.25], [0.5, 0.5], [0.5, 1.0]]), np.zeros((3, 2)))
    found, cut = weights(draws, np.inf)
    assert found.tolist() == [[2.0, 8.0], [2.0, 0.0], [0.0, 0.0]] and cut == 0
    clipped, cut = weights(draws, 3.0)
    assert clipped.tolist() == [[2.0, 3.0], [2.0, 0.0], [0.0, 0.0]] and cut == pytest.approx(1 / 3)


def test_ips_and_dr_are_unbiased_over_every_draw():
    """All twelve ordered pairs, each as often as Plackett–Luce draws it: the weighted sum is the truth, whatever q."""
    pairs = list(itertools.permutations(range(4), 2))
    chance = np.array([plackett_luce(pair).prod() for pair in pairs])
    propensity = np.array([plackett_luce(pair) for pair in pairs])
    shown, wanted = np.array(pairs), np.tile(WANTED, (len(pairs), 1))
    reward = np.array([clicks_at(pair) for pair in pairs])
    w, _ = weights(Draws(np.arange(12), shown, wanted, propensity, reward), np.inf)
    truth = clicks_at(WANTED).sum()
    assert chance.sum() == pytest.approx(1.0) and chance @ w == pytest.approx([1.0, 1.0])
    assert chance @ (w * reward).sum(axis=1) == pytest.approx(truth)
    model = np.random.default_rng(3).random((4, 2))  # any model of clicks by item and position
    before = np.hstack([np.ones((12, 1)), w[:, :-1]])
    q_shown, q_wanted = model[shown, [0, 1]], model[wanted, [0, 1]]
    assert chance @ (w * (reward - q_shown) + before * q_wanted).sum(axis=1) == pytest.approx(truth)


def test_intervals_cover_the_truth_and_snips_and_dr_are_the_narrower():
    """60 simulated logs of 1,500 requests: coverage within four binomial standard errors of 0.95."""
    found = off_policy(60, 1500, 11)
    for name, measured in found.items():
        assert measured["covered"] == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 60) ** 0.5), name
    assert max(found["snips"]["width"], found["dr"]["width"]) < found["ips"]["width"]


def test_effective_requests_and_clipping_are_stated():
    draws = drawn_orders(np.random.default_rng(2), 4000, 500)
    found = estimate(draws)
    w, _ = weights(draws, np.inf)
    assert found["effective"] == pytest.approx((w.sum(axis=0) ** 2 / (w**2).sum(axis=0)).tolist())
    assert found["mean_weight"] == pytest.approx([1.0, 1.0], abs=0.2) and found["clip"] is None
    cut = estimate(draws, clip=5.0)
    assert cut["clip"] == 5.0 and cut["clipped"] > 0 and cut["ips"]["value"] < found["ips"]["value"]


def test_wrong_propensities_and_no_support_are_refused():
    draws = drawn_orders(np.random.default_rng(4), 3000, 300)
    wrong = Draws(draws.user, draws.shown, draws.wanted, np.full((3000, 2), 0.5), draws.click)
    assert "where 1 is expected" in estimate(wrong)["withheld"]
    never = Draws(draws.user, draws.shown, np.full((3000, 2), 9), draws.propensity, draws.click)
    refused = estimate(never)
    assert "too little support" in refused["withheld"] and refused["dr"] is None and refused["logged"]["value"] > 0


def write(folder, draws, propensities=True):
    """The draws as the service logs them, with the other order as the shadow `next`."""
    served, shadows, events = [], [], []
    for n in range(len(draws.user)):
        rest = [item for item in range(4) if item not in draws.shown[n]]
        items = [f"i{item}" for item in [*draws.shown[n], *rest]]
        row = dict.fromkeys(SCHEMA.names) | {"request_id": f"r{n}", "user_id": f"u{draws.user[n]}", "variant": "a"}
        row |= {"ts": START, "served_at": START + timedelta(seconds=n), "item_ids": items}
        served.append(row | {"propensities": [*draws.propensity[n], 1.0, 1.0] if propensities else None})
        other = dict.fromkeys(SHADOW_SCHEMA.names) | {"request_id": f"r{n}", "ts": START, "variant": "next"}
        shadows.append(other | {"item_ids": ["i1", "i2", "i0", "i3"]})
        for place in np.flatnonzero(draws.click[n]):
            events.append({"request_id": f"r{n}", "item_id": items[place], "type": "click"})
    day = f"day={START:%Y-%m-%d}"
    for path, rows, schema in (
        (folder / "serving_log" / day, served, SCHEMA),
        (folder / "serving_log" / "_shadows" / day, shadows, SHADOW_SCHEMA),
        (folder / "logs" / "events" / day, events, None),
    ):
        path.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), path / "part-0.parquet")
    DESCRIPTION.save(folder / "logs")
    return folder / "serving_log", folder / "logs"


def test_the_services_logs_give_what_the_draws_give(tmp_path):
    draws = drawn_orders(np.random.default_rng(6), 3000, 300)
    found = judge_orders(*write(tmp_path, draws), shadow="next", positions=2)
    plain = estimate(draws)
    assert found["effective"] == pytest.approx(plain["effective"], rel=1e-4)  # propensities are logged in 32 bits
    for name in ("logged", "ips", "snips"):
        assert found[name]["interval"] == pytest.approx(plain[name]["interval"], rel=1e-4)
    assert found["dr"]["interval"][0] < clicks_at(WANTED).sum() < found["dr"]["interval"][1]
    orders = pa.table({"request_id": [f"r{n}" for n in range(3000)], "item_ids": [["i1", "i2"]] * 3000})
    pq.write_table(orders, tmp_path / "orders.parquet")
    again = judge_orders(
        tmp_path / "serving_log", tmp_path / "logs", orders=tmp_path / "orders.parquet", positions=2, variant="a"
    )
    assert again["snips"] == found["snips"]


def test_logs_without_propensities_and_orders_of_other_requests_are_errors(tmp_path):
    draws = drawn_orders(np.random.default_rng(7), 60, 20)
    serving_log, logs = write(tmp_path / "a", draws, propensities=False)
    with pytest.raises(DataError, match="no answer among 60 has propensities"):
        judge_orders(serving_log, logs, shadow="next", positions=2)
    serving_log, logs = write(tmp_path / "b", draws)
    with pytest.raises(DataError, match="0 drawn answers have an order"):
        judge_orders(serving_log, logs, shadow="another", positions=2)
    with pytest.raises(DataError, match="give the orders"):
        judge_orders(serving_log, logs)
