"""What the logs show follows from the truth, and the mechanisms that the pipeline is built for are in them."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from simulation.behaviour import examination
from simulation.population import DEVICES
from simulation.queries import attempt_of
from simulation.rates import base_rates
from simulation.world import SEARCH, SECOND
from tests.simulation.conftest import read


@pytest.fixture(scope="module")
def exposed(logs):
    """Search exposures as arrays: position, examination, truth, whether clicked and whether bought."""
    truth = read(logs, "truth")
    parent = pc.list_parent_indices(truth["item_ids"].combine_chunks())
    flat = {"request_id": truth["request_id"].combine_chunks().take(parent)}
    for name in ("item_ids", "click_probability", "purchase_probability"):
        flat[name] = pc.list_flatten(truth[name].combine_chunks())
    table = pa.table(flat).rename_columns({"item_ids": "item_id"})
    exposures = read(logs, "exposures").select(["request_id", "item_id", "position"])
    table = table.join(exposures, ["request_id", "item_id"])
    table = table.join(read(logs, "requests").select(["request_id", "device"]), "request_id")
    clicks = read(logs, "events").filter((pc.field("type") == "click") & (pc.field("domain") == "search"))
    clicks = clicks.select(["request_id", "item_id"]).append_column("clicked", pa.array([True] * clicks.num_rows))
    table = table.join(clicks, ["request_id", "item_id"])
    return table.to_pandas()


def seen(rows):
    device = np.array([DEVICES.index(name) for name in rows["device"]])
    every = examination(SEARCH, device, int(rows["position"].max()))
    return every[np.arange(len(rows)), rows["position"].to_numpy().astype(int) - 1]


def assert_binomial(successes, probabilities, sigmas=4.0):
    """Independent trials: the number of successes lies within `sigmas` deviations of its mean."""
    deviation = np.sqrt((probabilities * (1 - probabilities)).sum())
    assert abs(successes - probabilities.sum()) < sigmas * deviation


def test_clicks_follow_truth_times_examination(exposed):
    shown = exposed[exposed["position"].notna()]
    expected = seen(shown) * shown["click_probability"].to_numpy()
    clicked = shown["clicked"].notna().to_numpy()
    assert clicked.sum() > 300
    assert_binomial(clicked.sum(), expected)
    for position in sorted(shown["position"].unique()):
        at = (shown["position"] == position).to_numpy()
        assert_binomial(clicked[at].sum(), expected[at])
    high = expected > np.median(expected)
    assert_binomial(clicked[high].sum(), expected[high])
    assert_binomial(clicked[~high].sum(), expected[~high])


def test_unexposed_items_have_truth_and_no_search_click(exposed):
    hidden = exposed[exposed["position"].isna()]
    assert hidden["click_probability"].between(0, 1).all() and not hidden["clicked"].notna().any()
    assert (exposed["purchase_probability"] <= exposed["click_probability"]).all()


def test_position_bias_is_visible(exposed):
    shown = exposed[exposed["position"].notna()]
    # clicks over truth is what examination leaves of them
    grouped = shown.assign(clicked=shown["clicked"].notna()).groupby("position")[["clicked", "click_probability"]].sum()
    rate = (grouped["clicked"] / grouped["click_probability"]).to_numpy()
    assert rate[0] > 0.85 and rate[0] > 1.5 * rate[-1]


def test_production_prefers_the_popular_beyond_their_merit(exposed, world):
    popularity = dict(zip(world.catalogue.item_id.to_pylist(), np.log(world.catalogue.popularity), strict=True))
    rows = exposed.assign(popularity=exposed["item_id"].map(popularity), shown=exposed["position"].notna())
    band = np.digitize(rows["click_probability"], rows["click_probability"].quantile([0.2, 0.4, 0.6, 0.8]))
    means = rows.groupby([band, "shown"])["popularity"].mean().unstack()
    assert (means[True] > means[False] + 0.3).all()  # among items of equal truth


def test_search_scenarios_overlap(logs):
    requests = read(logs, "requests").filter(pc.field("domain") == "search")
    combinations = {tuple(names) for names in requests["scenario"].to_pylist()}
    assert {"keyword", "category", "promotion"} == {name for names in combinations for name in names}
    assert {("keyword",), ("keyword", "promotion"), ("keyword", "category"), ("category",)} <= combinations


def test_queries_are_typed_in_search_only_and_zipfian(logs):
    requests = read(logs, "requests")
    search = pc.equal(requests["domain"], "search")
    assert pc.equal(pc.is_valid(requests["query"]), search).to_pylist() == [True] * requests.num_rows
    counts = np.sort(requests.filter(search)["query"].value_counts().field("counts").to_numpy())[::-1]
    assert counts[0] > 10 * np.median(counts) and (counts == 1).mean() > 0.3


def test_unsatisfied_users_reword_their_query_within_minutes(logs):
    requests = read(logs, "requests").filter(pc.field("domain") == "search")
    clicked = set(read(logs, "events").filter(pc.field("domain") == "search")["request_id"].to_pylist())
    order = sorted(requests.to_pylist(), key=lambda row: row["request_id"])  # attempts are numbered in a row
    chains = [
        (first, second)
        for first, second in pairwise(order)
        if int(second["request_id"][1:]) == int(first["request_id"][1:]) + 1
        and attempt_of(int(second["request_id"][1:])) > 0
    ]
    assert all(first["user_id"] == second["user_id"] for first, second in chains)
    waits = np.array([(second["ts"] - first["ts"]).total_seconds() for first, second in chains])
    assert len(chains) > 0.15 * len(order) and ((waits >= 20) & (waits <= 150)).all()
    assert np.mean([first["query"] != second["query"] for first, second in chains]) > 0.5
    satisfied = [first["request_id"] in clicked for first, _ in chains]
    overall = np.mean([row["request_id"] in clicked for row in order])
    assert np.mean(satisfied) < 0.5 * overall


def test_items_seen_in_search_are_clicked_and_bought_elsewhere_later(logs):
    requests = read(logs, "requests").filter(pc.field("domain") == "search").select(["request_id", "user_id", "ts"])
    shown = read(logs, "exposures").select(["request_id", "item_id"]).join(requests, "request_id", join_type="inner")
    events = read(logs, "events").filter(pc.field("domain") != "search")
    pairs = events.rename_columns({"ts": "then", "request_id": "request"}).join(
        shown, ["user_id", "item_id"], join_type="inner"
    )
    delay = pc.subtract(pairs["then"].cast(pa.int64()), pairs["ts"].cast(pa.int64())).to_numpy() / (3600 * SECOND)
    logged, bought = (pc.is_valid(pairs["request"]).to_numpy(), pc.equal(pairs["type"], "purchase").to_numpy())
    assert (delay[logged] > 0).sum() > 100 and (delay[~logged] > 0).sum() > 100  # through a feed; and unlogged
    assert (delay[bought] > 0).sum() > 30 and (delay[bought] > 24).sum() > 3


def test_ads_charge_their_clicks_and_are_clicked_least(logs):
    ads = read(logs, "events").filter(pc.field("domain") == "ads")
    charged = pc.is_valid(ads["amount"]).to_numpy()
    kinds = np.array(ads["type"].to_pylist())
    assert charged[kinds == "click"].all() and not charged[kinds == "cart"].any()
    rates = base_rates(logs)
    assert rates["ctr.ads"] < min(rates["ctr.search"], rates["ctr.recommendation"])


def test_feed_pages_mix_categories_and_search_lists_do_not(logs):
    category = {row["item_id"]: row["category"][0] for row in read(logs, "items").to_pylist()}
    domain = {row["request_id"]: row["domain"] for row in read(logs, "requests").to_pylist()}
    pages = {}
    for row in read(logs, "exposures").to_pylist():
        pages.setdefault(row["request_id"], []).append(category[row["item_id"]])
    mixed = {
        name: np.mean([len(set(roots)) for request, roots in pages.items() if domain[request] == name])
        for name in ("search", "recommendation")
    }
    assert mixed["recommendation"] > mixed["search"] + 0.3


def test_users_differ_in_activity_and_come_back(logs, config):
    requests = read(logs, "requests")
    visits = requests.group_by(["user_id"]).aggregate([("day", "count_distinct")])["day_count_distinct"].to_numpy()
    assert visits.std() > 1.2 * np.sqrt(visits.mean() * (1 - visits.mean() / config.simulation.days))  # over binomial
    assert (visits > 3).mean() > 0.3


def test_base_rates_agree_with_a_count_by_hand(logs):
    rates = base_rates(logs)
    search = {row["request_id"] for row in read(logs, "requests").to_pylist() if row["domain"] == "search"}
    shown = [row for row in read(logs, "exposures").to_pylist() if row["request_id"] in search]
    events = read(logs, "events").to_pylist()
    clicks = [row for row in events if row["type"] == "click" and row["request_id"] in search]
    assert rates["ctr.search"] == pytest.approx(len(clicks) / len(shown))
    assert rates["clicks_per_search"] == pytest.approx(len(clicks) / len(search))
    asked = {row["request_id"]: row for row in read(logs, "requests").to_pylist()}
    met = {}
    for row in shown:
        request = asked[row["request_id"]]
        met.setdefault((request["user_id"], row["item_id"]), []).append(request["ts"])
    cross = [row for row in events if row["type"] == "click" and row["domain"] != "search"]
    hits = [
        any(0 <= (row["ts"] - ts).total_seconds() <= 86400 for ts in met.get((row["user_id"], row["item_id"]), ()))
        for row in cross
    ]
    assert rates["cross.shown"] == pytest.approx(np.mean(hits))
    assert rates["cross.listed"] > rates["cross.shown"] > 0.1
