"""Interleaved answers: drafted as by hand, credited to their teams in the log, and never a half of the truth."""

from dataclasses import replace

import numpy as np
import pytest

from serving.engine import Ranking
from serving.interleaving import draft
from serving.routing import Routing
from tests.serving.test_ranker import ask, engine, make_ranker, rows  # noqa: F401
from uniscale import interleaving
from uniscale.errors import ServingError
from uniscale.interleaving import team_draft

CONTROL = Ranking(["a", "b", "c", "?"], np.array([0.9, 0.5, 0.1, np.nan], np.float32), ["?"], 7)
TREATMENT = Ranking(["c", "b", "a", "?"], np.array([0.8, 0.6, 0.2, np.nan], np.float32), ["?"], 7)


@pytest.mark.parametrize(
    ("coin", "items", "scores", "teams"),
    [
        (0.25, ["c", "a", "b"], [0.8, 0.9, 0.6], ["new", "old", "new"]),  # the treatment drafts first
        (0.75, ["a", "c", "b"], [0.9, 0.8, 0.5], ["old", "new", "old"]),
    ],
)
def test_a_list_by_hand(monkeypatch, coin, items, scores, teams):
    """Every round's coin falls the same way; an item carries the score and the name of the variant that drafted it."""
    monkeypatch.setattr(interleaving, "unit_interval", lambda text: coin)
    found = draft({"old": CONTROL, "new": TREATMENT}, 3, "s", "r")
    assert (found.item_ids, found.teams, found.unknown) == (items, teams, ["?"])
    np.testing.assert_array_equal(found.scores, np.array(scores, np.float32))
    whole = draft({"old": CONTROL, "new": TREATMENT}, None, "s", "r")
    assert whole.item_ids == [*items, "?"] and np.isnan(whole.scores[-1]) and len(whole.teams) == 4


def test_every_answer_is_the_draft_of_both_variants_and_the_log_has_its_teams(engine, tmp_path):  # noqa: F811
    both, users = make_ranker(engine, tmp_path / "both", mode="interleave")
    split, _ = make_ranker(engine, tmp_path / "split")
    lineup, items = split.switch.current, [f"i{number}" for number in range(1, 30)]
    expected = []
    for number in range(20):
        asked = {"user_id": f"u{number}", "item_ids": items}
        orders = []
        for name in ("champion", "candidate"):
            everyone = lineup.routing.shared({each: float(each == name) for each in lineup.routing.variants})
            split.switch.current = replace(lineup, routing=everyone)
            orders.append([item["item_id"] for item in ask(split, **asked).body["items"]])
        answer = ask(both, **asked, request_id=f"r{number}", top_k=5).body
        assert (answer["variant"], answer["version"], answer["fallback"]) == ("interleaved", "1+2", None)
        drafted, of_treatment = team_draft(*orders, 5, "salt", f"r{number}")
        assert [item["item_id"] for item in answer["items"]] == drafted
        expected.append((drafted, ["candidate" if one else "champion" for one in of_treatment]))
    users.error = RuntimeError("a fallback is drafted by nobody")
    assert ask(both).body["fallback"] == "model"
    both.close()
    split.close()
    *drafted, fallback = rows(tmp_path / "both")
    assert [(row["item_ids"], row["teams"]) for row in drafted] == expected
    assert fallback["teams"] is None and fallback["variant"] == "interleaved"
    assert {row["teams"] for row in rows(tmp_path / "split")} == {None}


def routing(mode="interleave", **weights):
    variants = {n: {"weight": w, "target": {"version": n, "folder": n}} for n, w in weights.items()}
    return Routing.model_validate({"variants": variants, "mode": mode})


def test_lists_are_drafted_by_two_whatever_their_shares_until_a_roll_back_takes_one_away():
    assert routing(old=0.99, new=0.01).of_user("u1", "salt") == ("old", "new")
    assert routing(old=0.99, new=0.01).named(("old", "new")) == ("interleaved", "old+new")
    assert routing(old=1.0, new=0.0).of_user("u1", "salt") == ("old",)
    assert routing("split", old=1.0, new=0.0).of_user("u1", "salt") == ("old",)
    for wrong in ({"a": 1.0}, {"a": 0.5, "b": 0.25, "c": 0.25}):
        with pytest.raises(ValueError, match="by two variants"):
            routing(**wrong)
    with pytest.raises(ValueError, match="take another name"):
        routing(interleaved=0.5, new=0.5)
    one = routing("split", only=1.0)
    with pytest.raises(ServingError, match="by two variants"):
        one.shared({"only": 1.0}, "interleave")
