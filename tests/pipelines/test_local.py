"""A run on this machine of a pipeline that judges no candidate: its parameters, manifest, summary and exit."""

import io

import pytest
from kfp import dsl
from rich.console import Console

from components.finish import finish
from components.image import step
from pipelines import catalogue
from pipelines.catalogue import Definition
from pipelines.local import run_locally
from uniscale.artifacts import read_json
from uniscale.config import load_config
from uniscale.errors import ConfigError, UniscaleError
from uniscale.run_report import print_summary

CONFIG = load_config()


@step
def say(word: str) -> str:
    """Say a word, or fail on one that is not to be said."""
    if word == "bad":
        raise ValueError("not to be said: bad")
    return word.upper()


@step
def report(words: list[str], runs: str, run_id: str) -> None:
    """Sum up."""
    from pathlib import Path

    from uniscale.run_report import write_report

    write_report(Path(runs) / run_id, "Words", [("Said", ["word"], [[word] for word in words])], {"words": words})


def small(config, profile):
    @dsl.pipeline(name="uniscale-small")
    def graph(words: list[str] = ["one"], runs: str = "runs", run_id: str = "run", language: str = "en") -> None:
        last = finish(seed=7, notify=config.notify.model_dump_json(), runs=runs, run_id=run_id)
        with dsl.ExitHandler(last.set_caching_options(False), name="run"):
            with dsl.ParallelFor(words, name="word", parallelism=1) as word:
                said = say(word=word)
            report(words=dsl.Collected(said.output), runs=runs, run_id=run_id).set_caching_options(False)

    return graph


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(catalogue.PIPELINES, "small", Definition("uniscale-small", small, ("say", "report")))


def test_a_run_keeps_its_steps_and_its_tables_and_promotes_nothing(tmp_path) -> None:
    told: list[str] = []
    done = run_locally(CONFIG, tmp_path, told.append, pipeline="small", parameters={"words": ["a", "b"]})
    manifest = read_json(done.folder / "manifest.json")
    assert done.promoted is None and manifest["status"] == "completed" and manifest["pipeline"] == "small"
    assert [(step["name"], step["status"]) for step in manifest["steps"]] == [("say", "done"), ("report", "done")]
    assert manifest["words"] == ["A", "B"]
    screen = io.StringIO()
    print_summary(done.folder, Console(file=screen, width=120))
    assert "Said" in screen.getvalue() and "B" in screen.getvalue() and "promoted" not in screen.getvalue()


def test_a_run_that_failed_goes_on_under_its_id_and_other_parameters_are_another_run(tmp_path) -> None:
    with pytest.raises(UniscaleError, match="step say failed: not to be said: bad"):
        run_locally(CONFIG, tmp_path, lambda line: None, pipeline="small", parameters={"words": ["a", "bad"]})
    (failed,) = tmp_path.glob("*/manifest.json")
    steps = read_json(failed)["steps"]
    assert [(step["name"], step["status"]) for step in steps] == [("say", "failed"), ("report", "not run")]
    outcome = read_json(failed.with_name("outcome.json"))
    assert (outcome["state"], outcome["step"], outcome["error"]) == ("FAILED", "say", "not to be said: bad")
    other = run_locally(CONFIG, tmp_path, lambda line: None, pipeline="small", parameters={"words": ["a"]})
    assert read_json(failed)["status"] == "failed" and other.folder != failed.parent
    steps = read_json(other.folder / "manifest.json")["steps"]
    assert [(step["name"], step["status"]) for step in steps] == [("say", "cached"), ("report", "done")]
    told: list[str] = []
    with pytest.raises(UniscaleError):
        run_locally(CONFIG, tmp_path, told.append, pipeline="small", parameters={"words": ["a", "bad"]})
    assert "resuming" in told[0] and failed.parent.name in told[0]


def test_what_a_pipeline_does_not_have_is_refused_before_a_run_is_made(tmp_path) -> None:
    for pipeline, given, message in (
        ("smal", {}, "no pipeline 'smal'; did you mean small"),
        ("small", {"wrods": []}, "unknown parameter wrods; did you mean words"),
        ("small", {"words": "a"}, "parameter words = 'a' is no"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_locally(CONFIG, tmp_path, lambda line: None, pipeline=pipeline, parameters=given)
    assert not list(tmp_path.iterdir())
