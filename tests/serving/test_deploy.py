"""Packaging refuses what would not serve, and a service that cannot start says why; nothing is left behind."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from serving.deploy import _models, package, popularity_feature, running
from serving.deployment import Deployment
from serving.process import api_key, end_with
from serving.weights import export_half
from tests.sample_folder import SPEC
from uniscale.artifacts import write_json
from uniscale.config import load_config
from uniscale.errors import ConfigError, ServingError
from uniscale.samples import Feature

CONFIG = load_config()


def model_folder(folder, spec=SPEC, **tensors):
    folder.mkdir(parents=True)
    write_json(folder / "model.json", {"name": "tiny", "spec": spec.as_json()})
    save_file(tensors or {"w": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    SPEC.save(folder)
    return folder


def test_variants_weights_and_versions_must_agree(tmp_path, features):
    model = model_folder(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"experiment\.weights"):
        package(CONFIG, features, {"champion": model}, {"champion": "1"}, tmp_path / "out")
    with pytest.raises(ConfigError, match="versions are given"):
        package(CONFIG, features, {"champion": model, "candidate": model}, {"champion": "1"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_version_is_one_model(tmp_path):
    one, same = model_folder(tmp_path / "one"), model_folder(tmp_path / "same")
    other = model_folder(tmp_path / "other", w=np.zeros((2, 2), np.float32))
    assert _models({"a": one, "b": same}, {"a": "1", "b": "1"}) == {"1": one}
    with pytest.raises(ConfigError, match="two models"):
        _models({"a": one, "b": other}, {"a": "1", "b": "1"})
    with pytest.raises(ConfigError, match="cannot name a folder"):
        _models({"a": one}, {"a": "../1"})


def test_a_model_of_other_features_is_refused(tmp_path, features):
    other = replace(SPEC, features=(*SPEC.features, Feature("user_age", "user", "id", "request", "age")))
    models = {"champion": model_folder(tmp_path / "a"), "candidate": model_folder(tmp_path / "b", spec=other)}
    with pytest.raises(ServingError, match="user_age"):
        package(CONFIG, features, models, {"champion": "1", "candidate": "2"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_popularity_is_the_primary_tasks_count_over_the_longest_window():
    features = tuple(Feature(f"item_clicks_{window}d", "item", "count", "candidate") for window in (7, 30, 1))
    assert popularity_feature(replace(SPEC, features=features)) == "item_clicks_30d"
    with pytest.raises(ServingError, match="events of booking"):
        popularity_feature(replace(SPEC, features=features, tasks=("booking",)))


def test_half_precision_refuses_what_it_cannot_hold(tmp_path):
    for name, value in (("large", 1e6), ("nan", np.nan), ("infinite", np.inf)):
        model = model_folder(tmp_path / name, w=np.full((2, 2), value, np.float32))
        with pytest.raises(ServingError, match="weight w"):
            export_half(model, tmp_path / "out" / name)
    with pytest.raises(ServingError, match=r"model\.safetensors"):
        export_half(tmp_path / "nothing", tmp_path / "out" / "nothing")


def test_half_precision_keeps_vectors_and_integers(tmp_path):
    given = {"w": np.full((2, 3), 0.1, np.float32), "mean": np.float32([1e6, 0.1]), "ids": np.arange(4).reshape(2, 2)}
    export_half(model_folder(tmp_path / "model", **given), tmp_path / "half")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert {name: values.dtype for name, values in half.items()} == {"w": "float16", "mean": "float32", "ids": "int64"}
    np.testing.assert_array_equal(half["mean"], given["mean"])
    np.testing.assert_allclose(half["w"], given["w"], rtol=1e-3)


def deployment_without_bento(folder):
    deployment = Deployment(
        tag="uniscale_ranker:gone",
        versions={"champion": "1"},
        weights={"champion": 1.0},
        mode="split",
        salt="s",
        domain="search",
        scenarios=[],
        tasks=["click"],
        services=[],
        views=[],
        popularity="item_clicks_7d",
        source_hash="0",
        serving=CONFIG.serving,
    )
    (folder / "features").mkdir(parents=True)
    (folder / "bentoml" / "bentos").mkdir(parents=True)
    deployment.save(folder)
    return folder


def test_a_service_that_dies_is_quoted_and_leaves_the_deployment_alone(tmp_path):
    folder = deployment_without_bento(tmp_path / "deployment")
    before = sorted(folder.rglob("*"))
    log = tmp_path / "log"
    with pytest.raises(ServingError, match="uniscale_ranker:gone") as failure, running(CONFIG, folder, log):
        pass
    assert "ended with code" in str(failure.value)
    assert sorted(folder.rglob("*")) == before and [path.name for path in log.iterdir()] == ["_server.log"]


def test_off_loopback_a_key_is_asked_for_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("UNISCALE_API_KEY", raising=False)
    monkeypatch.delenv("UNISCALE_API_KEY_FILE", raising=False)
    folder = deployment_without_bento(tmp_path / "deployment")
    for host, message in (("0.0.0.0", "UNISCALE_API_KEY"), ("localhost", "IPv4 address")):
        config = CONFIG.model_copy(update={"serving": CONFIG.serving.model_copy(update={"host": host})})
        with pytest.raises(ConfigError, match=message), running(config, folder, tmp_path / "log"):
            pass
    assert not (tmp_path / "log").exists()


def test_an_empty_key_is_no_key(tmp_path):
    file = tmp_path / "key"
    file.write_text("secret\n")
    assert api_key({"UNISCALE_API_KEY_FILE": str(file)}) == "secret"
    file.write_text("\n")
    with pytest.raises(ServingError, match="is empty"):
        api_key({"UNISCALE_API_KEY_FILE": str(file)})
    with pytest.raises(ServingError, match="cannot be read: No such file"):
        api_key({"UNISCALE_API_KEY_FILE": str(tmp_path / "nowhere")})
    assert api_key({"UNISCALE_API_KEY": ""}) is None


def test_the_service_ends_with_the_process_that_started_it():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stopped = threading.Event()
    watch = threading.Thread(target=end_with, args=(child.pid, stopped.set, 0.01))
    watch.start()
    assert not stopped.wait(0.1)
    child.communicate(b"\n")
    assert stopped.wait(10)
    watch.join()


def test_a_folder_that_is_no_deployment_is_named(tmp_path):
    with pytest.raises(ServingError, match=r"no deployment\.json"), running(CONFIG, tmp_path, tmp_path / "log"):
        pass
    write_json(tmp_path / "deployment.json", {"tag": "x"})
    with pytest.raises(ServingError, match="package again"):
        Deployment.load(tmp_path)
