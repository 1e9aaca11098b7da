"""Skew: what differs is named, feature by feature; what is equal, rounded or in another order is not."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.skew import feature_skew, skewed
from monitoring.watch_report import facts, tables
from tests.monitoring.test_loop_verbs import measured, verb
from tests.sample_folder import SPEC, write_samples
from uniscale.artifacts import write_json
from uniscale.serving_log import INPUTS, inputs_schema


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("samples") / "s", requests_per_day=25, days=4)


def served(folder, samples, change=lambda row: row):
    """A log of inputs that equals the samples, of the exposed items from last to first, but for `change`."""
    files = sorted((samples / "rows").glob("day=*/domain=search/*.parquet"))
    rows = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    of_items = [feature.name for feature in SPEC.select("candidate")]
    logged = []
    for row in rows:
        exposed = [place for place, position in enumerate(row["position"]) if position][::-1]
        items = {name: [row[name][place] for place in exposed] for name in of_items}
        ids = [f"i{row['item'][place]}" for place in exposed]
        logged.append(change({name: row[name] for name in row if name in names()} | items | {"item_ids": ids}))
    path = folder / INPUTS / "day=2026-01-05" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(logged, inputs_schema(SPEC)), path)
    return folder


def names():
    return inputs_schema(SPEC).names


def test_equal_features_are_no_skew_in_whatever_order_the_items_came(tmp_path, samples):
    found = feature_skew(served(tmp_path, samples), samples, 0.0)
    assert found["requests"] == 100 and found["items"] > 400 and found["why_not"] is None
    assert {row["name"] for row in found["features"]} == set(names()) - {"request_id", "ts", "item_ids"}
    assert {row["share"] for row in found["features"]} == {0.0} and skewed(found) == []


def test_rounding_is_no_skew(tmp_path, samples):
    rounded = served(tmp_path, samples, lambda row: row | {"user_clicks_7d": row["user_clicks_7d"] * (1 + 1e-7)})
    assert skewed(feature_skew(rounded, samples, 0.0)) == []


def third(row):
    return int(row["request_id"].rpartition("-")[2]) % 3 == 0


PLANTED = {
    "a number": ("user_clicks_7d", lambda row: row["user_clicks_7d"] + third(row), 0.36, "requests"),
    "an id": ("context_device", lambda row: 0 if third(row) else row["context_device"], 0.36, "requests"),
    "a missing number filled": ("query_clicks_7d", lambda row: row["query_clicks_7d"] or 0.0, 0.2, "requests"),
    "a price": ("item_price", lambda row: [1.1 * price for price in row["item_price"]], 1.0, "items"),
    "an attribute": ("item_brand", lambda row: [brand + 1 for brand in row["item_brand"]], 1.0, "items"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_skew_is_found_in_its_feature_alone(tmp_path, samples, fault):
    name, wrong, share, what = PLANTED[fault]
    found = feature_skew(served(tmp_path, samples, lambda row: row | {name: wrong(row)}), samples, 0.01)
    shares = {row["name"]: row["share"] for row in found["features"]}
    assert shares.pop(name) == pytest.approx(share) and set(shares.values()) == {0.0}
    assert len(skewed(found)) == 1 and f"{name}: differs in {share:.1%} of {found[what]:,} {what}" in skewed(found)[0]


def test_a_lost_event_is_found_in_every_behaviour_feature_and_in_no_other(tmp_path, samples):
    of_behaviours = [name for name in names() if name.startswith("behaviour_")]
    lost = served(tmp_path, samples, lambda row: row | {name: row[name][:-1] for name in of_behaviours})
    found = {one.partition(":")[0] for one in skewed(feature_skew(lost, samples, 0.0))}
    assert found == set(of_behaviours)


def test_a_share_within_what_is_allowed_is_told_and_no_alarm(tmp_path, samples):
    first = served(
        tmp_path, samples, lambda row: row | {"user_gender": 1 if row["request_id"] == "r0-0-0" else row["user_gender"]}
    )
    found = feature_skew(first, samples, 0.01)
    assert {row["name"]: row["share"] for row in found["features"]}["user_gender"] == pytest.approx(0.01)
    assert skewed(found) == [] and skewed(feature_skew(first, samples, 0.009)) != []


def test_what_cannot_be_compared_says_why(tmp_path, samples):
    nothing = feature_skew(tmp_path / "nowhere", samples, 0.01)
    assert nothing["requests"] == 0 and "no log of served features" in nothing["why_not"]
    other = served(tmp_path, samples, lambda row: row | {"request_id": f"x{row['request_id']}"})
    found = feature_skew(other, samples, 0.01)
    assert found["features"] == [] and "may not be mature" in found["why_not"]


def test_the_verb_names_the_feature_and_ends_with_4(tmp_path, samples):
    same = served(tmp_path / "same", samples)
    asked = ("monitor", "skew", "--samples", samples, "--serving-log")
    assert "100 requests" in verb(*asked, same)
    free = served(tmp_path / "free", samples, lambda row: row | {"item_price": [0.0 for _ in row["item_price"]]})
    assert "item_price: differs in 100.0%" in verb(*asked, free, "--out", tmp_path / "skew", code=4)
    drift = measured(tmp_path / "drift", "2026-03-02")
    options = ("--skew", tmp_path / "skew", "--history", tmp_path / "kept", "--textfiles", tmp_path / "node")
    verb("monitor", "publish", "--drift", drift, *options)
    assert {file.name for file in (tmp_path / "node").iterdir()} == {"uniscale_drift.prom", "uniscale_skew.prom"}
    assert 'uniscale_skew_skewed{feature="item_price"} 1' in (tmp_path / "node" / "uniscale_skew.prom").read_text()
    verb(*asked, tmp_path / "nowhere", code=1)


def test_the_summary_of_a_monitoring_run_names_the_feature(tmp_path, samples):
    free = served(tmp_path / "free", samples, lambda row: row | {"item_price": [0.0 for _ in row["item_price"]]})
    write_json(tmp_path / "skew.json", feature_skew(free, samples, 0.01))
    drift = {key: [] for key in ("drifted", "late_labels", "measures", "verdict", "reason")}
    write_json(tmp_path / "drift.json", drift | {"windows": {"current": ["2026-01-07", "2026-01-08"]}})
    write_json(tmp_path / "experiments.json", {})
    write_json(tmp_path / "choice.json", {"train": False, "why": "", "new_days": []})
    assert "item_price: differs in 100.0%" in json.dumps(tables(facts(*[tmp_path] * 4)))
