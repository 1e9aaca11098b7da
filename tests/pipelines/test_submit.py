"""Compiling, and submission by the real client to an API on loopback."""

import pytest
import yaml

from pipelines.submit import compile_to, follow, submit_run
from pipelines.training import STEPS
from tests.pipelines.kfp_server import PipelinesApi, serving
from uniscale.config import load_config
from uniscale.errors import UniscaleError


@pytest.fixture(scope="module")
def config():
    return load_config(None, ["model.name=dlrm_mlp", "seed=5"])


@pytest.fixture(scope="module")
def ir(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("ir") / "training.yaml"
    compile_to(config, out)
    return next(yaml.safe_load_all(out.read_text()))


def test_the_ir_holds_every_step_and_the_configuration_as_defaults(ir, config) -> None:
    executors = {name.removeprefix("exec-") for name in ir["deploymentSpec"]["executors"]}
    assert {name for name in executors if not name.endswith("-2")} == set(STEPS)
    parameters = ir["root"]["inputDefinitions"]["parameters"]
    assert parameters["seed"]["defaultValue"] == 5
    assert parameters["model"]["defaultValue"] == config.model.model_dump_json()


def test_every_step_runs_in_our_image_and_installs_nothing(ir) -> None:
    for executor in ir["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert container["image"].startswith("uniscale/python:")
        assert "pip install" not in " ".join(container["command"])


def test_the_gate_branches(ir) -> None:
    triggers = [
        task["triggerPolicy"]["condition"]
        for component in ir["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "condition" in task.get("triggerPolicy", {})
    ]
    assert len(triggers) == 2 and sum("promote" in trigger and "!(" not in trigger for trigger in triggers) == 1


def test_side_effects_are_never_cached(ir) -> None:
    cached = {
        name
        for component in [ir["root"], *ir["components"].values()]
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if task.get("cachingOptions", {}).get("enableCache")
    }
    assert not cached & {"resolve", "seat", "promote", "reject", "summary", "summary-2", "finish"}
    assert {"logs", "ingest", "features", "samples", "train", "evaluate", "gate"} <= cached


def test_a_submitted_run_is_followed_to_its_end(config) -> None:
    api = PipelinesApi(["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"])
    said: list[str] = []
    with serving(api) as host:
        client, run_id = submit_run(config, host, None, "uniscale")
        follow(client, run_id, 60, said.append, poll_seconds=0.01)
    assert [line.split(": ")[1] for line in said] == ["PENDING", "RUNNING", "SUCCEEDED"]
    posted = api.runs[run_id]
    assert "uniscale-training" in posted["pipeline_spec"]["pipelineInfo"]["name"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_does_not_succeed_is_an_error(config, state) -> None:
    with serving(PipelinesApi(["RUNNING", state])) as host:
        client, run_id = submit_run(config, host, None, "uniscale")
        with pytest.raises(UniscaleError, match=f"ended {state}"):
            follow(client, run_id, 60, lambda line: None, poll_seconds=0.01)


def test_a_run_that_does_not_end_in_time(config) -> None:
    with serving(PipelinesApi(["RUNNING"])) as host:
        client, run_id = submit_run(config, host, None, "uniscale")
        with pytest.raises(UniscaleError, match="still RUNNING"):
            follow(client, run_id, 0.1, lambda line: None, poll_seconds=0.02)


def test_a_wrong_token_and_a_dead_host_are_said_clearly(config) -> None:
    with serving(PipelinesApi([], token="right")) as host, pytest.raises(UniscaleError, match="refused the run: 401"):
        submit_run(config, host, "wrong", "uniscale")
    with pytest.raises(UniscaleError, match="cannot reach Kubeflow Pipelines"):
        submit_run(config, "http://127.0.0.1:9", None, "uniscale")
