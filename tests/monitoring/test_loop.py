"""The parts between monitoring and training: the policy's facts, a backfill's table, experiments checked, a start."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from monitoring.backfill import fill
from monitoring.experiment_book import ExperimentBook
from monitoring.experiment_check import check_running, running
from monitoring.retraining_facts import last_seen, retrain, trainings
from monitoring.start_training import start_training
from monitoring.watch_report import facts, tables
from tests.monitoring.ab_logs import START, write_experiment
from tests.monitoring.test_rollback import DEFINITION
from uniscale.artifacts import content_hash, write_json
from uniscale.config import load_config
from uniscale.errors import UniscaleError
from uniscale.registry import Registry

CONFIG = load_config()


def register(store, folder, run_id, days):
    write_json(folder / run_id / "model.json", {"name": "hhsft", "training": {"days": days}})
    number = store.register(folder / run_id, run_id=run_id).number
    store.promote(number, force=True, reason="a test")


def drift_of(day, verdict, late=()):
    return {
        "windows": {"reference": ["2026-01-05", "2026-01-20"], "current": [day, day]},
        "verdict": verdict,
        "reason": "a reason",
        "drifted": ["search.item_price: PSI 0.4"] if verdict != "quiet" else [],
        "late_labels": list(late),
        "measures": {"drift.share": 0.1},
    }


@pytest.fixture
def store(tmp_path, empty_registry):
    """A registry whose champion has seen the days up to 1 February; a run and its baseline are one training."""
    store = Registry(empty_registry(tmp_path / "registry"), "ranker")
    register(store, tmp_path / "models", "r1-baseline", ["2026-01-05", "2026-01-20"])
    register(store, tmp_path / "models", "r1", ["2026-01-05", "2026-02-01"])
    return store


def ask(store, history, days, today=None, **more):
    asked = {"late_labels": False, "running": False} | more
    return retrain(CONFIG.retraining, store, history, days, today=today or date.today(), **asked)


def test_the_facts_of_the_policy_are_those_of_registry_and_history(store, tmp_path):
    history = tmp_path / "drift"
    for day, verdict in (("2026-01-31", "drift"), ("2026-02-02", "drift"), ("2026-02-03", "drift")):
        write_json(history / f"{day}.json", drift_of(day, verdict))
    assert last_seen(store) == "2026-02-01" and len(trainings(store)) == 1
    later = trainings(store)[0] + timedelta(days=5)
    days = ["2026-02-01", "2026-02-02", "2026-02-03"]
    found = ask(store, history, days, later)
    assert found["train"] and found["why"] == "drift in the last 2 comparisons"  # of January's model nobody asks
    assert found["new_days"] == days[1:] and found["verdicts"] == ["drift", "drift"]
    for more, why in (
        ({"late_labels": True}, "late"),
        ({"running": True}, "experiment"),
        ({"days": days[:1]}, "0 new"),
    ):
        refused = ask(store, history, more.pop("days", days), later, **more)
        assert not refused["train"] and why in refused["why"]


def test_nothing_in_the_registry_asks_for_a_first_training(tmp_path):
    found = ask(Registry(tmp_path / "registry", "ranker"), tmp_path / "drift", ["2026-02-01"])
    assert found["train"] and found["why"] == "no model was trained yet" and found["seen_until"] == ""


def test_a_backfill_fills_the_history_in_order_of_time(tmp_path):
    days = ["2026-02-02", "2026-02-01"]
    for place, day in enumerate(days):
        write_json(
            tmp_path / f"m{place}" / "measures.json", {"measures": {"click.auc": 0.7, "attributed.click.auc": 0.1}}
        )
        write_json(tmp_path / f"d{place}" / "drift.json", drift_of(day, "warn" if place else "quiet"))
    folders = [[tmp_path / f"{kind}{place}" for place in range(2)] for kind in "md"]
    found = fill(*folders, tmp_path / "history")
    assert [day["window"][1] for day in found.days] == sorted(days)
    (_, header, rows), (_, _, noticed) = found.tables
    assert header == ["test days", "drift", "click.auc"] and [row[1] for row in rows] == ["warn", "quiet"]
    assert rows[0][2] == "0.7000" and noticed == [["2026-02-01", "search.item_price: PSI 0.4"]]
    assert {path.name for path in (tmp_path / "history").iterdir()} == {
        *(f"{day}.json" for day in days),
        "history.html",
    }


class Kept:
    """A service that remembers what it was told."""

    def __init__(self):
        self.weights = None

    def set_weights(self, salt, weights, mode):
        self.weights = dict(weights)


def test_every_running_experiment_is_checked_and_a_harmful_one_is_rolled_back(tmp_path):
    book, service = ExperimentBook(tmp_path / "book"), Kept()
    paths = write_experiment(tmp_path, users=900, lift=-0.7, seed=71)
    data = (paths["serving_log"], paths["logs"])
    assert check_running(book, data, service, None, START) == {}
    book.start(DEFINITION.model_copy(update={"ramp": ()}), START)
    assert running(book) == ["search-ab"]
    found = check_running(book, data, service, None, datetime(2026, 3, 9, tzinfo=UTC))
    assert found["search-ab"]["verdict"] == "roll back" and found["search-ab"]["rolled_back"]
    assert service.weights is not None and service.weights["champion"] == 1.0 and running(book) == []


def test_a_training_starts_on_logs_that_are_kept_with_the_configuration_that_was_asked_for(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "description.json").write_text("{}")
    asked = load_config(None, ["train.epochs=9", "data.registered_model=ranker-simulation"]).model_dump_json()
    kept = start_training(asked, tmp_path / "raw", tmp_path / "kept", ["run", "--help"])
    assert content_hash(kept) == content_hash(tmp_path / "raw") == kept.name
    chosen = load_config(kept.with_suffix(".yaml"))
    assert (chosen.data.source, chosen.data.input, chosen.train.epochs) == ("logs", str(kept), 9)
    assert chosen.registered_model == "ranker-simulation"
    with pytest.raises(UniscaleError, match=r"uniscale registry show 9 .*ended with 1"):
        start_training(
            asked, tmp_path / "raw", tmp_path / "kept", ["registry", "show", "9", "--registry", str(tmp_path)]
        )


def test_what_a_monitoring_run_saw_is_told(tmp_path):
    write_json(tmp_path / "drift.json", drift_of("2026-02-02", "drift"))
    write_json(
        tmp_path / "skew.json", {"requests": 0, "items": 0, "features": [], "why_not": "no log of served features"}
    )
    write_json(tmp_path / "experiments.json", {"search-ab": {"verdict": "keep running", "reason": "too few users"}})
    write_json(tmp_path / "choice.json", {"train": False, "why": "nothing asks for it", "new_days": ["2026-02-02"]})
    said = json.dumps(tables(facts(*[tmp_path] * 4)))
    for text in (
        "search.item_price",
        "no log of served features",
        "search-ab",
        "keep running",
        "nothing asks for it",
        '"wait"',
    ):
        assert text in said
