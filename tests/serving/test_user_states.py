"""A returning user's behaviours are not computed again, and nobody can tell but by the clock: scores are the same."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batches import to_batch
from models.checkpoint import save_model
from models.zoo import build_model
from serving import precision
from serving.export import export
from serving.loader import load_checked
from serving.precision import choose
from serving.probe import probe_batch
from serving.routing import Target
from serving.served_model import ServedModel
from serving.telemetry import Telemetry
from serving.user_states import History, UserStates
from tests.models.small import some_rows
from tests.sample_folder import SPEC, write_samples
from uniscale.config import load_config

SMALL = ["model.table_rows=256", "model.embedding_dim=4", "model.onetrans.dim=16", "model.onetrans.layers=3"]
LONGEST = SPEC.max_behaviours


def history(*events, user="u1"):
    return History(user, np.array(events, np.int64).reshape(-1, 1))


@pytest.mark.parametrize(
    ("old", "now", "new"),
    [
        ([], [], 0),
        ([], [1, 2], 2),
        ([1, 2], [], None),  # forgotten
        ([1, 2], [1, 2], 0),
        ([1, 2], [1, 2, 3], 1),
        ([1, 2, 3, 4], [2, 3, 4, 5], 1),  # the window of four slides
        ([1, 2, 3, 4], [3, 4, 5, 6], 2),
        ([1, 2, 3, 4], [5, 6, 7, 8], None),  # nothing is left of it
        ([1, 2, 3], [2, 3], None),  # taken back, not slid: the window is not full
        ([1, 2, 3], [2, 3, 4], None),
        ([1, 3], [1, 2, 3], None),  # one came in between
        ([1, 2, 3], [1, 2], None),  # an older request, answered later
        ([1, 1, 1, 1], [1, 1, 1, 2], 1),  # equal behaviours: the fourth place decides
        ([1, 1, 2, 1], [1, 2, 1, 1], 1),
    ],
)
def test_a_history_knows_what_an_older_one_lacks(old, now, new):
    assert history(*now).new_since(history(*old).events, longest=4) == new


def test_the_least_recently_used_make_room_within_the_budget():
    told = []
    states = UserStates(100, lambda *change: told.append(change))
    for user in "abc":
        states.put(user, user, 40)
    assert states.get("a") is None and told[-1] == (80, 2, 1)
    assert states.get("b") == "b"  # now c is the oldest
    states.put("d", "d", 40)
    assert states.get("c") is None and states.get("b") == "b"
    states.put("b", "longer", 60)  # in place of 40
    assert states.get("b") == "longer" and states.size_bytes == 100 and len(states) == 2
    states.put("b", "too long", 101)
    assert states.get("b") is None and states.size_bytes == 40 and told[-1] == (40, 1, 0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    torch.set_num_threads(1)
    return write_samples(tmp_path_factory.mktemp("samples"), days=4)


@pytest.fixture(scope="module")
def asked(samples):
    """A batch and its history after the first n of 14 behaviours, of which the newest 10 count."""
    rows, vectors = some_rows(samples)
    pool = rows.take(np.argsort(-np.diff(rows.behaviour_offsets))[:3])
    one = pool.take(np.array([0]))
    names = ("behaviour_ids", "behaviour_numbers", "behaviour_index")

    def after(count, user="u1"):
        part = {name: getattr(pool, name)[:count] for name in names}
        times = one.ts[0] - 3600 * np.arange(14, 14 - count, -1)
        now = replace(one, behaviour_offsets=np.array([0, count]), behaviour_ts=times, **part)
        events = np.column_stack([now.behaviour_ids, now.behaviour_index, times])
        return to_batch(now, vectors), History(user, events[-LONGEST:])

    return after


def served(half=False, budget=1 << 20, name="onetrans"):
    model = build_model(name, SPEC, load_config(overrides=SMALL).model, seed=1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    found, states = Counter(), UserStates(budget)
    return ServedModel(model, states=states, half=half, found=lambda outcome: found.update([outcome])), found, states


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 2e-3)])
def test_a_returning_user_is_scored_as_a_new_one_is(asked, half, tolerance):
    model, found, states = served(half)
    for count in (2, 2, 3, 9, 10, 11, 11, 14, 5):
        batch, known = asked(count)
        torch.testing.assert_close(model.score(batch, known), model.score(batch), rtol=0, atol=tolerance)
    assert found == {"miss": 2, "hit": 2, "extended": 5}  # the last request is of an earlier time
    assert len(states) == 1


def test_users_and_models_do_not_share_states(asked):
    one, found, states = served()
    two = ServedModel(build_model("onetrans", SPEC, load_config(overrides=SMALL).model, seed=9), states=states)
    for user in ("u1", "u2"):
        for model in (one, two):
            batch, known = asked(4, user)
            torch.testing.assert_close(model.score(batch, known), model.score(batch), rtol=0, atol=1e-5)
    assert len(states) == 4 and found == {"miss": 2}


def test_without_room_or_without_a_state_to_keep_scores_are_the_models(asked):
    for model, outcomes in ((served(budget=100), {"miss": 2}), (served(name="hhsft"), {}), (served(name="est"), {})):
        scorer, found, states = model
        for _ in range(2):
            batch, known = asked(4)
            torch.testing.assert_close(scorer.score(batch, known), scorer.score(batch), rtol=0, atol=1e-6)
        assert found == outcomes and len(states) == 0


def test_a_loaded_model_keeps_users_and_the_metrics_say_what_it_found(asked, tmp_path):
    save_model(served()[0].model, tmp_path / "full", 0)
    export(tmp_path / "full", tmp_path / "1")
    telemetry = Telemetry()
    kept = (
        UserStates(1 << 20, telemetry.states_changed),
        False,
        lambda outcome: telemetry.user_states.labels(outcome).inc(),
    )
    model = load_checked(Target.of("1", tmp_path / "1"), tmp_path, SPEC, torch.device("cpu"), 2e-3, *kept)
    for count in (4, 4, 5):
        model.score(*asked(count))
    text = telemetry.exposition().decode()
    for outcome in ("hit", "miss", "extended"):
        assert f'uniscale_user_states_total{{outcome="{outcome}"}}' in text
    assert "uniscale_user_states_bytes" in text and kept[0].size_bytes > 0


def test_the_precision_is_measured_and_only_a_faster_and_faithful_one_is_taken(monkeypatch):
    model, _, _ = served()
    batch = probe_batch(SPEC)
    expected = model.score(batch)

    def takes(**milliseconds):
        names = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
        monkeypatch.setattr(precision, "_milliseconds", lambda model, _: milliseconds[names[model.precision]])
        monkeypatch.setattr(precision, "HOPELESS", float("inf"))

    takes(float32=10.0, bfloat16=9.0, float16=30.0)
    choose(model, batch, tolerance=1.0)
    assert model.precision is torch.float32  # faster, not clearly
    assert model.state() == {"device": "cpu", "precision": "float32", "milliseconds": model.measured}
    assert model.measured["bfloat16"] == 9.0 and torch.equal(model.score(batch), expected)
    takes(float32=10.0, bfloat16=4.0, float16=30.0)
    choose(model, batch, tolerance=0.0)
    assert model.precision is torch.float32  # faster, and other scores
    choose(model, batch, tolerance=1.0)
    assert model.precision is torch.bfloat16 and not torch.equal(model.score(batch), expected)
