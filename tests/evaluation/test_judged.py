"""Measures of judged rows, their slices and cohorts, and the truth of a simulation, by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import metrics
from models.cohorts import exposures_of_items, item_cohorts, slices_of
from models.data import read_rows, row_files
from models.judged import Judged, Measures, Slice, compare, measure
from models.truth import measure_truth
from tests.sample_folder import SPEC, write_samples
from uniscale.errors import DataError
from uniscale.samples import Sampling


def judged(seed=0, users=30, n=900, champion=True, labels=None):
    rng = np.random.default_rng(seed)
    user = np.arange(n) % users
    request = user * 3 + np.arange(n) // users % 3
    signal = rng.normal(size=n)
    clicks = (rng.random(n) < 1 / (1 + np.exp(1 - signal))).astype(int) if labels is None else labels
    scores = {"candidate": {"click": 1 / (1 + np.exp(1 - signal))}}
    if champion:
        scores["champion"] = {"click": 1 / (1 + np.exp(1 - signal - rng.normal(size=n)))}
    clicked = {"click": clicks}
    return Judged(request, user, request, request % 2, clicked, clicked, scores)


def test_a_worse_champion_is_told_apart_and_its_slices_too():
    rows, found = judged(), Measures()
    first = Slice("scenario", "first", np.arange(900) < 450)
    measure(rows, found)
    table = compare(rows, [first], 300, 0.95, 0, found)
    assert found.values["difference.click.auc"]["low"] > 0
    assert found.values["difference.click.auc"]["p_not_better"] < 0.01
    assert table[0]["rows"] == 450
    assert table[0]["positives"] == rows.labels["click"][:450].sum()
    assert table[0]["candidate"] == pytest.approx(
        metrics.auc(rows.labels["click"][:450], rows.scores["candidate"]["click"][:450])
    )
    assert table[0]["difference"]["value"] == pytest.approx(table[0]["candidate"] - table[0]["champion"])
    assert found.reasons == {}


def test_what_is_undefined_is_null_with_a_reason():
    rows, found = judged(labels=np.zeros(900, int)), Measures()
    measure(rows, found)
    compare(rows, [], 100, 0.95, 0, found)
    for key in ("click.auc", "click.gauc", "click.hr@5", "click.ndcg@10", "champion.click.auc"):
        assert found.values[key] is None
        assert "0 of 900 rows are positive" in found.reasons[key]
    assert found.values["difference.click.auc"] is None
    assert "undefined" in found.reasons["difference.click.auc"]
    assert found.values["evaluation.positives"] == 0


def test_one_user_has_values_but_no_certainty():
    rows, found = judged(users=1), Measures()
    measure(rows, found)
    compare(rows, [], 100, 0.95, 0, found)
    assert found.values["click.auc"] is not None
    assert found.values["difference.click.gauc"] is None
    assert "at least 2" in found.reasons["difference.click.gauc"]


def test_items_are_head_until_half_of_the_exposures_are_reached():
    assert item_cohorts(np.array([0, 40, 30, 20, 10])).tolist() == ["new", "head", "head", "tail", "tail"]
    assert item_cohorts(np.array([0, 0])).tolist() == ["new", "new"]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("samples") / "samples", seed=3)


def test_cohorts_come_from_histories_and_training_exposures(samples):
    rows = read_rows(row_files(samples, "test", "search", SPEC), SPEC, "search")
    files = row_files(samples, "train", "search", SPEC)
    train = read_rows(files, SPEC, "search")
    exposures = exposures_of_items(files, 61)
    np.testing.assert_array_equal(exposures, np.bincount(train.item, minlength=61))
    found = {(part.by, part.name): part.rows for part in slices_of(rows, files)}
    history = np.diff(rows.behaviour_offsets)[rows.request_of]
    np.testing.assert_array_equal(found["user_cohort", "new"], history == 0)
    assert history[found["user_cohort", "light"]].max() < history[found["user_cohort", "heavy"]].min()
    head = exposures[np.unique(rows.item[found["item_cohort", "head"]])]
    assert head.min() >= exposures[np.unique(rows.item[found["item_cohort", "tail"]])].max()


def write_truth(samples, folder, extra):
    """The truth of every target-domain request: its row's items and `extra` further ones; p = index / 100."""
    for file in row_files(samples, "test", "unexposed", SPEC):
        table = pq.ParquetFile(file.path).read(columns=["request_id", "item"])
        others = [np.setdiff1d(np.arange(1, 61), items)[:extra] for items in table["item"].to_pylist()]
        lists = [np.append(items, more)[::-1] for items, more in zip(table["item"].to_pylist(), others, strict=True)]
        part = folder / file.path.parent.parent.name
        part.mkdir(parents=True, exist_ok=True)
        columns = {
            "request_id": table["request_id"],
            "item_ids": pa.array([[f"i{item}" for item in items] for items in lists]),
            "click_probability": pa.array([(items / 100).tolist() for items in lists], pa.list_(pa.float32())),
            "purchase_probability": pa.array([(items / 1000).tolist() for items in lists], pa.list_(pa.float32())),
        }
        pq.write_table(pa.table(columns), part / "part.parquet")
    return folder


def test_truth_is_matched_by_request_and_item_and_stands_for_the_whole_list(samples, tmp_path):
    rows = read_rows(row_files(samples, "test", "unexposed", SPEC), SPEC, "attributed", ("request_id",))
    items = pq.ParquetFile(samples / "items.parquet").read(columns=["index", "item_id"])
    oracle = rows.item / 100
    constant = {"click": oracle * 0, "conversion": oracle}
    found = Measures()
    truth = write_truth(samples, tmp_path / "truth", extra=9)
    measure_truth(
        rows, {"candidate": {"click": oracle, "conversion": -oracle}, "champion": constant}, items, truth, found
    )
    exposed = rows.sampling == Sampling.EXPOSED
    sampled = np.add.reduceat((~exposed).astype(int), rows.offsets[:-1])
    weight = np.where(exposed, 1.0, ((sampled + 9) / sampled)[rows.request_of])
    assert found.values["truth.matched_share"] == 1.0
    assert found.values["truth.click.auc"] == pytest.approx(metrics.expected_auc(oracle, oracle, weight), abs=1e-6)
    assert found.values["truth.conversion.auc"] < 0.5
    assert found.values["champion.truth.click.auc"] == pytest.approx(0.5)
    assert found.values["truth.click.ndcg@10_of_sampled"] == pytest.approx(1.0)


def test_weighting_by_the_inverse_of_the_sampling_rate_estimates_the_whole_list():
    rng = np.random.default_rng(0)
    truth = rng.random(400)
    scores = truth + rng.normal(size=400)
    whole = metrics.expected_auc(truth, scores)
    shown = scores > 0.9  # what a policy shows is no random part of the list
    draws = []
    for _ in range(200):
        taken = rng.choice(np.flatnonzero(~shown), 60, replace=False)
        rows = np.append(np.flatnonzero(shown), taken)
        weight = np.append(np.ones(shown.sum()), np.full(60, (~shown).sum() / 60))
        draws.append(metrics.expected_auc(truth[rows], scores[rows], weight))
    assert np.mean(draws) == pytest.approx(whole, abs=0.003)
    assert abs(metrics.expected_auc(truth[shown], scores[shown]) - whole) > 0.03


def test_a_truth_of_other_days_is_refused(samples, tmp_path):
    rows = read_rows(row_files(samples, "test", "unexposed", SPEC), SPEC, "attributed", ("request_id",))
    with pytest.raises(DataError, match="holds none of the days 2026-01-11"):
        measure_truth(rows, {}, pa.table({"index": [1], "item_id": ["i1"]}), tmp_path, Measures())
