"""The registry's verbs: what they print, what they refuse, and that a served version leads back to what made it."""

import json

import pytest
from typer.testing import CliRunner

from tests.registry.conftest import model, seat
from uniscale.cli import app
from uniscale.errors import RegistryError

CONFIG = {"seed": 7, "train": {"epochs": 3}}


def verb(store, *arguments):
    """A verb's output; its error is raised as it is, `main` turns it into one message."""
    done = CliRunner().invoke(app, ["registry", *arguments, "--registry", str(store.folder.parent)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def verb_json(store, *arguments):
    return json.loads(verb(store, *arguments, "--json"))


@pytest.fixture
def two(store, tmp_path):
    """A champion with its lineage, and a second version that was judged against it."""
    folder, record = model(tmp_path / "first", weights="first")
    version = store.register(
        folder, "run-1", record, data_hash="d1", data_version="abc.dir@0123456789ab", source="s1", config=CONFIG
    )
    store.promote(version.number)
    folder, record = model(tmp_path / "second", weights="second", champion=version)
    store.register(folder, "run-2", record)
    return store


def test_list_tells_champion_and_verdicts(two):
    rows = verb_json(two, "list")
    assert [(row["number"], row["champion"], row["verdict"]) for row in rows] == [
        ("1", True, "promote"),
        ("2", False, "promote"),
    ]
    assert "run-2" in verb(two, "list")


def test_promotion_and_rollback_are_on_record_with_their_reasons(two):
    assert verb_json(two, "promote", "2")["number"] == "2"
    assert verb_json(two, "rollback", "--reason", "orders fell")["number"] == "1"
    assert two.champion().number == "1"
    decisions = verb_json(two, "history")
    assert [(d["action"], d["version"], d["previous"], d["why"]) for d in decisions[-2:]] == [
        ("promote", "2", "1", "passed the gate"),
        ("rollback", "1", "2", "orders fell"),
    ]
    assert "orders fell" in " ".join(verb(two, "history").split())


def test_a_refused_promotion_needs_force_and_a_reason(two, tmp_path):
    folder, record = model(tmp_path / "bad", weights="bad", champion=two.champion(), verdict="reject")
    two.register(folder, "run-3", record)
    with pytest.raises(RegistryError, match=r"failed floor:click\.auc"):
        verb(two, "promote", "3")
    with pytest.raises(RegistryError, match="give --reason"):
        verb(two, "promote", "3", "--force")
    verb(two, "promote", "3", "--force", "--reason", "the gate's data are late")
    assert verb_json(two, "history")[-1]["forced"] is True


def test_whatever_names_a_served_model_leads_back_to_what_made_it(two):
    version = two.version("1")
    for reference in ("1", "champion", "run-1", version.content_hash, version.content_hash[:8]):
        found = verb_json(two, "show", reference)
        assert found["number"] == "1"
    assert (found["data_hash"], found["data_version"], found["source_hash"]) == ("d1", "abc.dir@0123456789ab", "s1")
    assert found["config"] == CONFIG
    assert found["gate"]["verdict"] == "promote"
    assert [decision["action"] for decision in found["decisions"]] == ["register", "promote"]
    page = " ".join(verb(two, "show", "1").split())
    assert all(text in page for text in ("abc.dir@0123456789ab", "floor:click.auc", '"epochs": 3', "run-1"))


def test_a_fetched_model_is_named_by_its_version_for_packaging(two, tmp_path):
    printed = verb(two, "fetch", "champion", "--out", str(tmp_path / "models"))
    assert printed.split() == [str(tmp_path / "models" / "1")]
    assert (tmp_path / "models" / "1" / "model.safetensors").read_text() == "first"


def test_a_hash_that_fits_two_versions_or_none_is_refused(two, tmp_path):
    folder, record = model(tmp_path / "again", weights="first", verdict="reject")
    two.register(folder, "run-4", record)
    with pytest.raises(RegistryError, match="fits the versions 1, 3"):
        verb(two, "show", two.version("1").content_hash)
    with pytest.raises(RegistryError, match="no version 'ffffffff'"):
        verb(two, "show", "ffffffff")


def test_a_model_has_to_be_named_where_there_are_several_and_none_is_an_error(two, tmp_path):
    with pytest.raises(RegistryError, match="no model 'other'; it holds ranker"):
        verb(two, "list", "--name", "other")
    (two.folder.parent / "other" / "log").mkdir(parents=True)
    with pytest.raises(RegistryError, match="holds other, ranker: choose one with --name"):
        verb(two, "list")
    assert len(verb_json(two, "list", "--name", "ranker")) == 2
    with pytest.raises(RegistryError, match="is empty"):
        CliRunner().invoke(app, ["registry", "list", "--registry", str(tmp_path / "none")], catch_exceptions=False)


def test_a_seat_taken_in_between_is_told(two, tmp_path):
    folder, record = model(tmp_path / "third", weights="third", champion=two.champion())
    two.register(folder, "run-3", record)
    verb(two, "promote", "2")
    with pytest.raises(RegistryError, match="but version 2 is champion now"):
        verb(two, "promote", "3")


def test_an_empty_champion_is_said(store, tmp_path):
    seat_less, record = model(tmp_path / "a")
    store.register(seat_less, "run-1", record)
    with pytest.raises(RegistryError, match="no champion yet"):
        verb(store, "show")
    seat(store, tmp_path)
    assert verb_json(store, "show")["run_id"] == "first"
