"""Served scores are the offline scores of the same row, order follows them, and the unknown comes last."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.batches import to_batch
from models.rows import ItemVectors, rows_from_arrow
from models.zoo import build_model
from serving.engine import Ask, Engine, popular
from serving.inputs import UserInputs, context_id
from serving.items import RELOAD_SHARE, Catalogue, Snapshot
from serving.served_model import ServedModel
from tests.sample_folder import SPEC, write_samples
from tests.serving.raw import DEVICES, items_raw, user_raw
from uniscale.config import load_config
from uniscale.hashing import hash64

ITEMS = 60
SMALL = ["model.table_rows=512", "model.embedding_dim=4", "model.hhsft.hfa_dim=16", "model.hhsft.gfa_dim=8"]


class QueryVectors:
    """An encoder that knows the query vectors of the samples."""

    def __init__(self, table: pa.Table):
        self.vectors = dict(zip(table["query"].to_pylist(), table["query_text"].to_pylist(), strict=True))

    def encode(self, texts):
        return np.array([self.vectors.get(text, [0.0] * SPEC.text_dim) for text in texts], np.float32)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    torch.set_num_threads(1)
    return write_samples(tmp_path_factory.mktemp("samples"), items=ITEMS, days=4)


@pytest.fixture(scope="module")
def table(samples):
    files = sorted((samples / "rows").glob("day=*/domain=search/*.parquet"))
    rows = pa.concat_tables([pq.ParquetFile(path).read() for path in files])
    return rows.filter(rows["query_clicks_7d"].is_valid())  # the sample job fills statistics, so nulls do not occur


@pytest.fixture(scope="module")
def items(samples):
    return pq.ParquetFile(samples / "items.parquet").read()


@pytest.fixture(scope="module")
def models(table):
    config = load_config(overrides=SMALL).model
    built = {name: build_model(name, SPEC, config, seed=1) for name in ("hhsft", "dlrm_mlp")}
    for model in built.values():
        model.fit(rows_from_arrow(table, SPEC))
        model.calibrate({"click": {"a": 1.3, "b": -0.2}})
        model.eval()
    return built


@pytest.fixture(scope="module")
def engine(samples, table):
    return Engine(SPEC, ItemVectors.load(samples, SPEC), QueryVectors(table))


@pytest.fixture(scope="module")
def rank(engine, models):
    return lambda name, *request: engine.rank(ServedModel(models[name]), engine.prepare(*request))


@pytest.fixture(scope="module")
def catalogue(items):
    return Catalogue.from_tables(SPEC, items_raw(ITEMS), items, "item_clicks_7d")


def ask_of(row: dict, **changes) -> Ask:
    given = {
        "user_id": row["user_id"],
        "query": row["query"],
        "scenario": [SPEC.scenarios[place] for place in row["scenarios"]],
        "context": {"device": DEVICES[row["context_device"]]},
        "item_ids": [f"i{item}" for item in row["item"]],
        "ts": row["ts"],
    }
    return Ask(**{**given, **changes})


@pytest.mark.parametrize("name", ["hhsft", "dlrm_mlp"])
def test_served_scores_are_the_offline_scores(name, rank, samples, table, items, models):
    """A samples row, its features given raw as the store gives them, scores the same to the bit through both paths."""
    worst = 0.0
    for place in range(0, table.num_rows, 7):
        row = table.slice(place, 1).to_pylist()[0]
        row_alone = rows_from_arrow(table.slice(place, 1), SPEC)
        offline = models[name].score(to_batch(row_alone, ItemVectors.load(samples, SPEC)))[:, 0]
        of_row = Catalogue.from_tables(SPEC, items_raw(ITEMS, row), items, "item_clicks_7d")
        ranking = rank(name, ask_of(row), UserInputs(SPEC)(user_raw(row)), of_row)
        served = dict(zip(ranking.item_ids, ranking.scores, strict=True))
        gaps = [abs(served[f"i{item}"] - float(score)) for item, score in zip(row["item"], offline, strict=True)]
        worst = max(worst, *gaps)
    assert worst == 0.0


def test_every_model_input_equals_the_samples_row(engine, table, items):
    """Stronger than equal scores: no column may be hashed, filled or ordered in another way."""
    row = table.slice(3, 1).to_pylist()[0]
    of_row = Catalogue.from_tables(SPEC, items_raw(ITEMS, row), items, "item_clicks_7d")
    ask = ask_of(row)
    served = engine.rows(ask, UserInputs(SPEC)(user_raw(row)), of_row, of_row.places(ask.item_ids))
    offline = rows_from_arrow(table.slice(3, 1), SPEC)
    for name in ("request_ids", "request_numbers", "query_text", "scenarios", "ts", "candidate_ids", "item"):
        np.testing.assert_array_equal(getattr(served, name), getattr(offline, name), err_msg=name)
    for name in ("candidate_numbers", "behaviour_ids", "behaviour_index", "behaviour_ts", "offsets", "domain"):
        np.testing.assert_array_equal(getattr(served, name), getattr(offline, name), err_msg=name)


def test_scores_fall_and_do_not_depend_on_the_order_given(rank, table, catalogue):
    row = table.slice(0, 1).to_pylist()[0]
    user = UserInputs(SPEC)(user_raw(row))
    first = rank("hhsft", ask_of(row), user, catalogue)
    turned = rank("hhsft", ask_of(row, item_ids=[f"i{item}" for item in reversed(row["item"])]), user, catalogue)
    assert (np.diff(first.scores) <= 0).all()
    assert first.item_ids == turned.item_ids
    np.testing.assert_allclose(first.scores, turned.scores, atol=1e-6)


def test_unknown_items_come_last_without_a_score_and_are_named(rank, table, catalogue):
    row = table.slice(0, 1).to_pylist()[0]
    user = UserInputs(SPEC)(user_raw(row))
    known = rank("hhsft", ask_of(row, item_ids=["i1", "i2"]), user, catalogue)
    mixed = rank("hhsft", ask_of(row, item_ids=["new", "i1", "newer", "i2"]), user, catalogue)
    assert mixed.item_ids == [*known.item_ids, "new", "newer"] and mixed.unknown == ["new", "newer"]
    np.testing.assert_allclose(mixed.scores[:2], known.scores, atol=1e-6)
    assert np.isnan(mixed.scores[2:]).all()


def test_an_unknown_user_without_query_is_a_normal_cold_one(rank, catalogue, table):
    row = table.slice(0, 1).to_pylist()[0]
    cold = UserInputs(SPEC)({"user_id": "nobody", "query": None})
    assert cold.values["user_id_hash"] == hash64("nobody") and cold.values["query_hash"] == 0
    assert cold.values["user_clicks_7d"] == 0.0 and cold.values["user_gender"] == 0
    ranking = rank("hhsft", ask_of(row, user_id="nobody", query=None, context={}, scenario=[]), cold, catalogue)
    assert np.isfinite(ranking.scores).all()


def test_behaviours_at_or_after_the_request_are_not_seen(engine, table, catalogue):
    """A store fed by a stream knows the future of a replayed request; the model may not."""
    row = next(r for r in table.to_pylist() if len(r["behaviour_ts"]) >= 3)
    asked = row["ts"].timestamp()
    raw = user_raw(row) | {
        "behaviour_ts": [int(asked) - 50, int(asked) - 10, *[int(asked) + 5] * 8][: len(row["behaviour_ts"])]
    }
    ask = ask_of(row)
    rows = engine.rows(ask, UserInputs(SPEC)(raw), catalogue, catalogue.places(ask.item_ids))
    assert rows.behaviour_ts.tolist() == [int(asked) - 50, int(asked) - 10]
    assert len(rows.behaviour_ids) == len(rows.behaviour_index) == rows.behaviour_offsets[-1] == 2
    later = ask_of(row, ts=row["ts"] + timedelta(seconds=6))
    assert len(
        engine.rows(later, UserInputs(SPEC)(raw), catalogue, catalogue.places(later.item_ids)).behaviour_ts
    ) == len(row["behaviour_ts"])


def test_the_history_of_a_request_has_a_row_for_each_behaviour_that_the_model_sees(engine, table, catalogue):
    row = max(table.to_pylist(), key=lambda row: len(row["behaviour_ts"]))
    prepared = engine.prepare(ask_of(row), UserInputs(SPEC)(user_raw(row)), catalogue)
    seen = int(prepared.batch.behaviour_mask.sum())
    assert prepared.history.user_id == row["user_id"]
    assert len(prepared.history.events) == len(np.unique(prepared.history.events, axis=0)) == seen >= 3


def test_features_hash_tells_inputs_apart(rank, table, catalogue):
    row = table.slice(0, 1).to_pylist()[0]
    user = UserInputs(SPEC)(user_raw(row))
    same = {rank(name, ask_of(row), user, catalogue).features_hash for name in ("hhsft", "dlrm_mlp")}
    other = rank("hhsft", ask_of(row, query=None), user, catalogue).features_hash
    assert len(same) == 1 and other not in same and -(1 << 63) <= other < 1 << 63


def test_popularity_orders_by_count_ties_as_given_unknown_last(items):
    table = items_raw(ITEMS).set_column(4, "item_clicks_7d", pa.array(np.r_[5, 9, 9, np.zeros(57)], pa.float32()))
    catalogue = Catalogue.from_tables(SPEC, table, items, "item_clicks_7d")
    ranking = popular(["x", "i7", "i1", "i3", "i2"], catalogue)
    assert ranking.item_ids == ["i3", "i2", "i1", "i7", "x"] and ranking.unknown == ["x"]
    assert np.isnan(ranking.scores).all()


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), ("phone", "phone"), (True, "true"), (False, "false"), (3, "3"), (1.5, "1.5")]
)
def test_context_values_hash_like_the_strings_of_the_logs(value, text):
    assert context_id(value) == (0 if text is None else hash64(text))


def test_snapshot_reloads_when_old_and_keeps_the_old_one_on_error(catalogue):
    """Alone at first, then at a share of the time that leaves the rest to requests."""
    now, answers, shares, counted = [0.0], [catalogue, RuntimeError("store is down"), "newer"], [], []

    def load(share):
        shares.append(share)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    snapshot = Snapshot(load, ttl_seconds=10, clock=lambda: now[0], count=counted.append)
    assert snapshot.get() is catalogue and len(answers) == 2
    for expected, error in ((catalogue, "RuntimeError: store is down"), ("newer", None)):
        now[0] += 11
        snapshot.get()
        with snapshot._reloading:  # held by the reload until it is done
            pass
        assert snapshot.get() == expected and snapshot.error == error
    assert shares == [1.0, RELOAD_SHARE, RELOAD_SHARE] and counted == ["failed", "done"]
