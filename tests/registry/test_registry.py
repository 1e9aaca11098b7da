"""Laws of the registry: only a passed gate seats a champion, one of two wins, and there is always a way back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.registry.conftest import model, seat
from uniscale.artifacts import content_hash, read_json, write_json
from uniscale.errors import RegistryError
from uniscale.registry import Registry

ROOT = Path(__file__).resolve().parents[2]


def aliases(store):
    found = store._call(lambda client: client.get_registered_model(store.name).aliases)
    return {alias: str(version) for alias, version in found.items()}


def test_a_version_keeps_its_files_lineage_and_record(store, tmp_path):
    folder, record = model(tmp_path / "a")
    version = store.register(folder, "run-1", record, data_hash="d1", source="s1", by="ann")
    assert (version.number, version.verdict, version.data_hash, version.source_hash) == ("1", "promote", "d1", "s1")
    assert version.content_hash == content_hash(folder)
    assert store.champion() is None
    assert store.fetch("1", tmp_path / "out").joinpath("model.safetensors").read_text() == "w"
    kept = store._call(lambda client: client.get_model_version("ranker", "1"))
    assert kept.tags["run_id"] == "run-1"
    assert kept.tags["gate.floor.click.auc"] == "pass 0.7"
    assert aliases(store) == {"challenger": "1"}
    entry = store.history()[0]
    assert (entry.action, entry.by, entry.why) == ("register", "ann", "passed the gate")


def test_registering_again_gives_the_same_version_and_another_record_another_one(store, tmp_path):
    folder, record = model(tmp_path / "a")
    first = store.register(folder, "run-1", record)
    assert store.register(folder, "run-1", record) == first
    assert len(store.history()) == 1
    _, rejected = model(tmp_path / "b", verdict="reject")
    assert store.register(folder, "run-1", rejected).number == "2"


def test_promotion_seats_and_rollback_restores_step_by_step(store, tmp_path):
    for name in ("first", "second", "third"):
        seat(store, tmp_path, name)
    assert store.champion().number == "3"
    assert aliases(store) == {"champion": "3"}
    assert store.rollback(reason="orders fell").number == "2"
    assert aliases(store) == {"champion": "2", "challenger": "3"}
    assert store.rollback().number == "1"
    with pytest.raises(RegistryError, match="no earlier champion"):
        store.rollback()
    assert store.champion().number == "1"
    actions = [(e.action, e.version, e.previous) for e in store.history() if e.action != "register"]
    assert actions == [
        ("promote", "1", None),
        ("promote", "2", "1"),
        ("promote", "3", "2"),
        ("rollback", "2", "3"),
        ("rollback", "1", "2"),
    ]
    assert store.history()[-2].why == "orders fell"
    assert Registry(tmp_path / "registry", "ranker").champion() == store.champion()


def test_promoting_the_champion_again_changes_nothing(store, tmp_path):
    version = seat(store, tmp_path)
    before = store.history()
    assert store.promote(version.number) == version
    assert store.history() == before


def trained(folder):
    """What training writes beside the weights: 1,200 points of the loss and one epoch, whose GAUC is not known."""
    report = {"subset": "entire", "days": ["2026-01-05", "2026-01-09"], "device": "cpu", "processes": 1}
    report |= {"precision": "float32", "steps": 24000, "samples_per_second": 9.5, "mfu": 0.25, "mfu_of_passes": 0.5}
    report |= {"forward_flops_per_sample": 80, "seconds": {"data": 1.5, "forward": 2.0}}
    write_json(folder / "model.json", {"name": "hhsft", "seed": 7, "training": report})
    steps = [{"step": 20 * place, "click": 1.0 / (1 + place)} for place in range(1200)]
    epoch = {"epoch": 0, "step": 24000, "followed": "auc", "click": {"gauc": None, "auc": 0.75}}
    write_json(folder / "curves.json", {"steps": steps, "epochs": [epoch]})


def runs_of(store):
    """MLflow's runs of a model."""
    found = store._call(lambda client: client.get_experiment_by_name(store.name))
    return store._call(lambda client: client.search_runs([found.experiment_id])) if found else []


def test_a_version_leads_to_a_run_with_the_curves_of_its_training(store, tmp_path):
    folder, record = model(tmp_path / "a")
    trained(folder)
    store.register(folder, "run-1", record)
    (run,) = runs_of(store)
    assert store._call(lambda client: client.get_model_version("ranker", "1")).run_id == run.info.run_id
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert run.data.params == {
        "model": "hhsft",
        "seed": "7",
        "subset": "entire",
        "days": "2026-01-05 to 2026-01-09",
        "device": "cpu",
        "processes": "1",
        "precision": "float32",
    }
    loss = store._call(lambda client: client.get_metric_history(run.info.run_id, "loss.click"))
    assert [(point.step, point.value) for point in loss] == [(20 * n, 1.0 / (1 + n)) for n in range(1200)]
    assert run.data.metrics["validation.click.auc"] == 0.75
    assert "validation.click.gauc" not in run.data.metrics  # not known: no point
    assert (run.data.metrics["seconds.forward"], run.data.metrics["mfu"]) == (2.0, 0.25)


def test_a_model_without_curves_has_a_version_and_no_run(store, tmp_path):
    folder, record = model(tmp_path / "a")
    store.register(folder, "run-1", record)
    assert runs_of(store) == []


def test_a_run_begun_by_a_killed_registration_is_finished_not_doubled(store, tmp_path, monkeypatch):
    folder, record = model(tmp_path / "a")
    trained(folder)
    store._call(lambda client: None)
    with monkeypatch.context() as during:
        during.setattr(store._mlflow, "set_terminated", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.register(folder, "run-1", record)
    assert [run.info.status for run in runs_of(store)] == ["RUNNING"]
    assert store.register(folder, "run-1", record).number == "1"
    (run,) = runs_of(store)
    assert run.info.status == "FINISHED"
    assert len(store._call(lambda client: client.get_metric_history(run.info.run_id, "loss.click"))) == 1200


@pytest.mark.parametrize("verdict", ["reject", None])
def test_without_a_passing_record_only_force_with_a_reason_promotes(store, tmp_path, verdict):
    folder, record = model(tmp_path / "a", verdict=verdict or "reject")
    version = store.register(folder, "run-1", record if verdict else None)
    with pytest.raises(RegistryError, match=r"failed floor:click\.auc" if verdict else "no gate record"):
        store.promote(version.number)
    with pytest.raises(RegistryError, match="needs a reason"):
        store.promote(version.number, force=True, reason="  ")
    assert store.champion() is None
    store.promote(version.number, force=True, reason="the gate's data are late", by="ann")
    entry = store.history()[-1]
    assert (entry.action, entry.forced, entry.why, entry.by) == ("promote", True, "the gate's data are late", "ann")


def test_a_record_counts_only_against_the_champion_it_judged(store, tmp_path):
    first = seat(store, tmp_path)
    stale, record = model(tmp_path / "stale", weights="stale", champion=first)
    unaware, unaware_record = model(tmp_path / "unaware", weights="unaware", champion=None)
    stale_version = store.register(stale, "stale", record)
    unaware_version = store.register(unaware, "unaware", unaware_record)
    seat(store, tmp_path, "second")
    with pytest.raises(RegistryError, match=f"judged against champion {first.content_hash}, but version 4 is champion"):
        store.promote(stale_version.number)
    with pytest.raises(RegistryError, match="judged against no champion"):
        store.promote(unaware_version.number)
    assert store.champion().number == "4"


PROMOTER = """
import sys, time
from pathlib import Path
from uniscale.errors import RegistryError
from uniscale.registry import Registry
folder, number = Path(sys.argv[1]), sys.argv[2]
store = Registry(folder, "ranker")
store._call(lambda client: client.search_registered_models())
(folder / f"ready-{number}").touch()
while not (folder / "go").exists():
    time.sleep(0.002)
try:
    store.promote(number)
except RegistryError as error:
    print(error)
    sys.exit(4)
"""


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(store, tmp_path):
    first = seat(store, tmp_path)
    for name in ("left", "right"):
        folder, record = model(tmp_path / name, weights=name, champion=first)
        store.register(folder, name, record)
    registry = tmp_path / "registry"
    command = [sys.executable, "-c", PROMOTER, str(registry)]
    rivals = [subprocess.Popen([*command, n], stdout=subprocess.PIPE, text=True, cwd=ROOT) for n in ("2", "3")]
    wait_for(lambda: all((registry / f"ready-{n}").exists() for n in ("2", "3")), rivals)
    (registry / "go").touch()
    told = [rival.communicate(timeout=60)[0] for rival in rivals]
    assert sorted(rival.returncode for rival in rivals) == [0, 4]
    winner = "2" if rivals[0].returncode == 0 else "3"
    assert f"version {winner} is champion now" in told[0] + told[1]
    assert store.champion().number == winner
    assert aliases(store)["champion"] == winner
    assert [e.version for e in store.history() if e.action == "promote"] == ["1", winner]


KILLED = """
import os, signal, sys
from uniscale.registry import Registry
store = Registry(sys.argv[1], "ranker")
calls = []
def die():
    calls.append(1)
    if len(calls) == 2:  # the first call mends the past, the second comes after the log was written
        os.kill(os.getpid(), signal.SIGKILL)
store._point = die
store.promote(sys.argv[2])
"""


def test_a_promoter_killed_in_the_middle_leaves_a_registry_that_mends_itself(store, tmp_path):
    first = seat(store, tmp_path)
    folder, record = model(tmp_path / "b", weights="b", champion=first)
    store.register(folder, "b", record)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "registry"), "2"], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert store.champion().number == "2"  # the log was written, so the promotion stands
    assert aliases(store)["champion"] == "1"
    third, record = model(tmp_path / "c", weights="c", champion=store.champion())
    store.register(third, "c", record)  # the lock is free, and a change mends the alias
    assert aliases(store) == {"champion": "2", "challenger": "3"}
    assert store.rollback().number == "1"


def test_a_version_made_by_a_killed_registration_is_used_not_doubled(store, tmp_path, monkeypatch):
    folder, record = model(tmp_path / "a")
    monkeypatch.setattr(store.log, "append", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.register(folder, "run-1", record)
    again = Registry(tmp_path / "registry", "ranker")
    assert again.versions() == []
    assert again.register(folder, "run-1", record).number == "1"
    assert len(again._call(lambda client: client.search_model_versions("name='ranker'"))) == 1


def test_a_lost_database_is_made_anew_with_its_numbers_tags_and_aliases(store, tmp_path, empty_registry):
    first = seat(store, tmp_path)
    store._call(lambda client: client.create_model_version("ranker", "file:///cut-off"))  # takes number 2
    seat(store, tmp_path, "second")
    before = {
        v.version: dict(v.tags) for v in store._call(lambda client: client.search_model_versions("name='ranker'"))
    }
    database = tmp_path / "registry" / "mlflow.db"
    database.write_bytes(b"no database")
    damaged = Registry(tmp_path / "registry", "ranker")
    assert damaged.champion().number == "3"  # reading needs none
    with pytest.raises(RegistryError, match=r"file is not a database; .* may be moved away"):
        damaged.rollback()
    database.write_bytes((empty_registry(tmp_path / "empty") / "mlflow.db").read_bytes())
    again = Registry(tmp_path / "registry", "ranker")
    assert again.rollback("second is slow").number == first.number
    assert aliases(again) == {"champion": "1", "challenger": "3"}
    after = {v.version: dict(v.tags) for v in again._call(lambda client: client.search_model_versions("name='ranker'"))}
    assert after == {number: tags for number, tags in before.items() if number != 2} and len(after) == 2


def test_a_change_that_waits_too_long_is_told_who_is_at_work(store, tmp_path):
    impatient = Registry(tmp_path / "registry", "ranker", wait_seconds=0.1)
    with store.log.lock(1), pytest.raises(RegistryError, match=f"process {os.getpid()} for 0.1 s"):
        impatient.rollback()


def test_changed_files_are_not_handed_out(store, tmp_path):
    version = seat(store, tmp_path)
    (version.folder / "model.safetensors").write_text("other")
    with pytest.raises(RegistryError, match="not those that were registered"):
        store.fetch(version.number, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_deleted_decision_is_noticed(store, tmp_path):
    seat(store, tmp_path)
    (store.folder / "log" / "000001.json").unlink()
    with pytest.raises(RegistryError, match="no entry 1"):
        store.champion()


def test_two_models_of_one_registry_do_not_meet(store, tmp_path):
    seat(store, tmp_path)
    other = Registry(tmp_path / "registry", "other")
    assert other.champion() is None
    folder, record = model(tmp_path / "o", weights="o")
    assert other.register(folder, "o", record).number == "1"
    other.tag("1", "bento", "ranker:abc")
    assert other._call(lambda client: client.get_model_version("other", "1")).tags["bento"] == "ranker:abc"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, t: s.promote("7"), "no version '7'.*registered: none"),
        (lambda s, t: s.register(t, "r"), "has no model.json"),
        (lambda s, t: s.rollback(), "no earlier champion"),
        (lambda s, t: Registry(t, "a/b"), "use letters, digits"),
        (lambda s, t: Registry("ftp://x"), "use a folder, sqlite"),
        (lambda s, t: Registry("https://mlflow:5000"), r"\?artifacts="),
    ],
)
def test_what_cannot_be_done_is_said_with_its_remedy(store, tmp_path, call, message):
    with pytest.raises(RegistryError, match=message):
        call(store, tmp_path)


def test_a_record_that_is_none_is_refused(store, tmp_path):
    folder, record = model(tmp_path / "a")
    write_json(record, {"verdict": "maybe"})
    with pytest.raises(RegistryError, match="no gate record, its verdict is 'maybe'"):
        store.register(folder, "r", record)


def test_a_server_that_refuses_is_a_clear_error_and_promotes_nothing(tmp_path):
    from mlflow.exceptions import MlflowException

    class Refusing:
        def __getattr__(self, name):
            raise MlflowException("connection refused")

    store = Registry(f"http://127.0.0.1:9?artifacts={tmp_path / 'shared'}")
    assert store.uri == "http://127.0.0.1:9"
    store._mlflow = Refusing()
    folder, record = model(tmp_path / "a")
    with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:9: connection refused; mend that"):
        store.register(folder, "r", record)
    assert store.history() == []


def test_reading_the_registry_needs_no_mlflow(store, tmp_path):
    seat(store, tmp_path)
    code = (
        "import sys; from uniscale.registry import Registry; s = Registry(sys.argv[1], 'ranker');"
        "print(s.champion().number, len(s.history()), 'mlflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "registry")]
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.split() == ["1", "2", "False"]


def test_the_log_is_plain_json_in_order(store, tmp_path):
    seat(store, tmp_path)
    files = sorted((store.folder / "log").iterdir())
    assert [file.name for file in files] == ["000001.json", "000002.json"]
    assert read_json(files[1])["action"] == "promote"
    assert json.loads(files[1].read_text())["at"].endswith("+00:00")


def wait_for(condition, processes, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
