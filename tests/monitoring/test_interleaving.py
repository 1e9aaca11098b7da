"""Team draft: fair by enumeration, right by simulation, and refused where it cannot be believed."""

import itertools
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.experiments import interleaved
from monitoring.experiment import analyse
from monitoring.interleaving import analyse_interleaving, preference, verdict_on
from tests.monitoring.ab_logs import DESCRIPTION, START
from uniscale import interleaving
from uniscale.config import load_config
from uniscale.errors import DataError
from uniscale.interleaving import team_draft
from uniscale.run_report import _experiment, _interleaving

ITEMS = "abcde"


def test_every_position_is_drafted_by_either_team_equally_often_over_all_coins(monkeypatch):
    """All coins of all pairs of rankings of four items: the law that makes interleaving unbiased."""
    for treatment in itertools.permutations("abcd"):
        for length in (3, 4):
            drafted = Counter()
            for coins in itertools.product((0.25, 0.75), repeat=2):
                monkeypatch.setattr(interleaving, "unit_interval", lambda text, c=coins: c[int(text.split(":")[-1])])
                items, teams = team_draft("abcd", treatment, length, "s", "r")
                assert len(set(items)) == len(items) == length
                drafted.update(place for place, team in enumerate(teams) if team)
            assert drafted == dict.fromkeys(range(length), 2)


def test_each_team_drafts_its_best_item_that_is_left():
    items, teams = team_draft("abc", "bca", 3, "salt", "r1")
    assert items[:2] in (["a", "b"], ["b", "a"]) and teams[0] != teams[1] and items[2] == "c"
    assert team_draft("abc", "bca", 3, "salt", "r1") == (items, teams)
    assert team_draft("ab", "abcd", 9, "salt", "r")[0] == ["a", "b"]


def write(folder, requests, click, users=150, seed=0, treatment_order="edcba"):
    """Interleaved lists of two fixed rankings, and clicks by `click(rng, item, position)`."""
    rng = np.random.default_rng(seed)
    lists, events = [], []
    for n in range(requests):
        items, teams = team_draft(ITEMS, treatment_order, 4, "salt", f"r{n}")
        user, named = f"u{n % users}", ["new" if team else "old" for team in teams]
        lists.append({"request_id": f"r{n}", "user_id": user, "item_ids": items, "teams": named})
        for place, item in enumerate(items):
            if click(rng, item, place):
                events.append({"event_id": f"{n}-{item}", "request_id": f"r{n}", "item_id": item, "type": "click"})
    logs = folder / "logs"
    (logs / "events" / f"day={START:%Y-%m-%d}").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(events), logs / "events" / f"day={START:%Y-%m-%d}" / "part-0.parquet")
    DESCRIPTION.save(logs)
    pq.write_table(pa.Table.from_pylist(lists), folder / "lists.parquet")
    return folder / "lists.parquet", logs


def test_clicks_that_do_not_look_at_the_items_prefer_neither(tmp_path):
    found = analyse_interleaving(
        *write(tmp_path, 2000, lambda rng, item, place: rng.random() < 0.5 / (1 + place)), "new"
    )
    assert found["interval"][0] < 0.5 < found["interval"][1] and found["fair"]
    assert "neither" in found["statement"] and sum(found["requests"].values()) == 2000


def test_the_better_ranking_gets_the_credit(tmp_path):
    taste = dict(zip(ITEMS, (0.1, 0.1, 0.1, 0.3, 0.5), strict=True))
    found = analyse_interleaving(*write(tmp_path, 1500, lambda rng, item, place: rng.random() < taste[item]), "new")
    assert found["share"] > 0.55 and found["p"] < 0.001 and "new is preferred" in found["statement"]
    assert found["requests"]["won"] > found["requests"]["lost"]


def test_the_pipelines_experiment_is_analysed_by_its_mode_and_told_in_the_summary(tmp_path):
    """The lists lie in the serving log, beside answers that nobody drafted and those of shadows."""
    lists, logs = write(tmp_path, 900, lambda rng, item, place: item in "de")
    rows = pq.read_table(lists)
    plain = pa.Table.from_pylist([{"request_id": "x", "user_id": "u", "item_ids": ["a"], "teams": None}], rows.schema)
    day = tmp_path / "log" / f"day={START:%Y-%m-%d}"
    for folder in (day, tmp_path / "log" / "_shadows" / day.name):
        folder.mkdir(parents=True)
        pq.write_table(plain, folder / "plain.parquet")
    pq.write_table(rows, day / "lists.parquet")
    config = load_config(overrides=["experiment.mode=interleave"]).experiment
    found = analyse(config, tmp_path / "log", logs, tmp_path / "out" / "analysis", treatment="new")
    assert found == analyse_interleaving(lists, logs, "new") and "new is preferred" in found["statement"]
    summary = _experiment(tmp_path / "out")
    assert list(summary) == ["interleaving"]
    assert found["statement"] in json.dumps(_interleaving(summary["interleaving"]))


def test_the_share_of_the_credits_by_hand():
    # Four users with (0, 30), (10, 20), (20, 20), (10, 10): 80 of 120 credits.
    found = preference(np.array([0.0, 10, 20, 10]), np.array([30.0, 20, 20, 10]), 0.05)
    assert found["share"] == pytest.approx(2 / 3) and found["credits"] == [40, 80]
    # Residuals t − 2/3 (c + t): 10, 0, −20/3, −10/3; √(4/3 · (100 + 44.44 + 11.11)) / 120 = 0.12002.
    assert found["interval"][1] - found["share"] == pytest.approx(1.959964 * 0.12002, abs=1e-4)


def test_the_test_keeps_its_level_and_finds_a_preference():
    assert interleaved(400, 200, 5) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 400) ** 0.5)
    assert interleaved(50, 200, 6, share=0.6) > 0.9


@pytest.mark.parametrize(
    "changes, verdict",
    [
        ({"fair": False}, "invalid"),
        ({"days": 6}, "keep running"),
        ({"interval": None, "withheld": "30 credited clicks"}, "underpowered"),
        ({}, "preferred"),
        ({"interval": [0.4, 0.49]}, "not preferred"),
        ({"interval": [0.45, 0.55]}, "no preference"),
    ],
)
def test_only_the_planned_end_of_a_fair_draft_says_whom_users_prefer(changes, verdict):
    found = {"fair": True, "days": 7, "interval": [0.51, 0.6], "withheld": None, "treatment": "new", "statement": "So."}
    said = verdict_on(found | changes, 7)
    assert (said["verdict"], said["reason"]) == (verdict, "So.")


def test_few_clicks_unfair_drafts_and_bad_lists_are_said(tmp_path):
    few = analyse_interleaving(*write(tmp_path / "a", 100, lambda rng, item, place: place == 0 and item == "a"), "new")
    assert few["share"] is None and "100 are needed" in few["statement"]
    lists, logs = write(tmp_path / "b", 300, lambda rng, item, place: rng.random() < 0.5)
    rows = pq.read_table(lists).to_pylist()
    with pytest.raises(DataError, match="expected 'newer' and one other"):
        analyse_interleaving(lists, logs, "newer")
    pq.write_table(pa.Table.from_pylist([row | {"teams": ["new", "old", "old", "new"]} for row in rows]), lists)
    assert "not fair" in analyse_interleaving(lists, logs, "new")["statement"]
    pq.write_table(pa.Table.from_pylist([row | {"teams": ["new"]} for row in rows]), lists)
    with pytest.raises(DataError, match="too many or too few"):
        analyse_interleaving(lists, logs, "new")
    with pytest.raises(DataError, match="no interleaved lists"):
        analyse_interleaving(tmp_path / "none", logs, "new")
