"""The IR: every step, the configuration as defaults, our image; and the settings of a cluster where they belong."""

import inspect
from pathlib import Path

import pytest
import yaml

from pipelines.catalogue import PIPELINES, compile_to
from pipelines.training import STEPS
from uniscale.cli.service import serve
from uniscale.config import load_config
from uniscale.errors import ConfigError
from uniscale.profile import Profile, load_profile

ROOT = Path(__file__).resolve().parents[2]
GPU_STEPS = {"champion", "train", "evaluate"}


@pytest.fixture(scope="module")
def config():
    return load_config(None, ["model.name=dlrm_mlp", "seed=5", "data.source=logs", "data.input=/data/logs"])


def read(config, folder, profile=None):
    out = folder / "training.yaml"
    compile_to(config, out, profile)
    ir, *platforms = yaml.load_all(out.read_text(), yaml.CSafeLoader)
    return ir, platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}


@pytest.fixture(scope="module")
def ir(config, tmp_path_factory):
    return read(config, tmp_path_factory.mktemp("ir"))[0]


@pytest.fixture(scope="module")
def gpu(config, tmp_path_factory):
    return read(config, tmp_path_factory.mktemp("gpu"), load_profile("cluster-gpu"))


def step_of(executor):
    name = executor.removeprefix("exec-")
    return name.removesuffix("-2")


def tasks(ir):
    """Every task of the pipeline with its name, those of branches too."""
    for component in (ir["root"], *ir["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def test_the_ir_holds_every_step_and_the_configuration_as_defaults(ir, config) -> None:
    assert {step_of(name) for name in ir["deploymentSpec"]["executors"]} == set(STEPS)
    parameters = ir["root"]["inputDefinitions"]["parameters"]
    assert parameters["seed"]["defaultValue"] == 5
    assert parameters["model"]["defaultValue"] == config.model.model_dump_json()


def test_every_step_runs_in_our_image_and_installs_nothing(ir) -> None:
    for executor in ir["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert container["image"].startswith("uniscale/python:")
        assert "pip install" not in " ".join(container["command"])


def test_the_gate_branches(ir) -> None:
    conditions = [task.get("triggerPolicy", {}).get("condition") for _, task in tasks(ir)]
    triggers = [condition for condition in conditions if condition]
    assert len(triggers) == 2 and sum("promote" in trigger and "!(" not in trigger for trigger in triggers) == 1


def test_side_effects_are_never_cached(ir) -> None:
    cached = {name for name, task in tasks(ir) if task.get("cachingOptions", {}).get("enableCache")}
    assert not cached & {"preflight", "resolve", "seat", "promote", "reject", "summary", "summary-2", "finish"}
    assert {"logs", "ingest", "features", "samples", "train", "evaluate", "gate"} <= cached


def test_training_asks_for_its_gpu_and_nothing_else_does(gpu) -> None:
    ir, _ = gpu
    for name, executor in ir["deploymentSpec"]["executors"].items():
        resources = executor["container"]["resources"]
        if step_of(name) in GPU_STEPS:
            accelerator = resources["accelerator"]
            assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")
            assert resources["resourceMemoryLimit"] == "128Gi" and resources["resourceCpuRequest"] == "8"
        else:
            assert "accelerator" not in resources


def test_images_follow_the_pool_and_carry_the_hash_of_the_source(gpu) -> None:
    from uniscale.artifacts import source_hash

    images = {step_of(n): e["container"]["image"] for n, e in gpu[0]["deploymentSpec"]["executors"].items()}
    repository = "registry.example.com/uniscale"
    assert images["train"] == f"{repository}:train-gpu-{source_hash()}"
    assert images["samples"] == f"{repository}:features-{source_hash()}"
    assert images["promote"] == images["finish"] == f"{repository}:all-{source_hash()}"


def test_gpu_steps_are_placed_on_gpu_nodes_with_shared_memory_and_nccl(gpu) -> None:
    ir, kubernetes = gpu
    train = kubernetes["exec-train"]
    assert train["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    (toleration,) = train["tolerations"]
    expected = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert {key: toleration[key] for key in expected} == expected
    (memory,) = train["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", "16Gi")
    environment = {e["name"]: e["value"] for e in ir["deploymentSpec"]["executors"]["exec-train"]["container"]["env"]}
    assert environment["NCCL_SOCKET_IFNAME"] == "eth0" and environment["NCCL_IB_HCA"] == "mlx5"
    assert "nodeSelector" not in kubernetes["exec-samples"]


def test_every_step_mounts_the_state_reads_the_secrets_and_has_a_timeout(gpu) -> None:
    _, kubernetes = gpu
    assert {step_of(name) for name in kubernetes} == set(STEPS)
    for step, settings in kubernetes.items():
        (claim,) = settings["pvcMount"]
        assert (claim["constant"], claim["mountPath"]) == ("uniscale-state", "/mnt/uniscale"), step
        variables = {pair["envVar"] for secret in settings["secretAsEnv"] for pair in secret["keyToEnv"]}
        assert {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"} <= variables
        assert settings["imagePullPolicy"] == "IfNotPresent" and settings["imagePullSecret"]
        assert int(settings["activeDeadlineSeconds"]) in (14400, 43200, 86400)


def test_failed_steps_are_started_again_but_not_preflight_and_exit_handler(gpu) -> None:
    retried = {
        step_of(name): task["retryPolicy"]["maxRetryCount"] for name, task in tasks(gpu[0]) if "retryPolicy" in task
    }
    assert set(retried) == set(STEPS) - {"preflight", "finish"} and set(retried.values()) == {2}


def test_a_cluster_has_its_own_spark_state_and_run_ids_and_reads_logs_anew(gpu) -> None:
    ir, _ = gpu
    parameters = ir["root"]["inputDefinitions"]["parameters"]
    assert "spark://spark-master" in parameters["spark"]["defaultValue"]
    assert parameters["registry"]["defaultValue"] == "/mnt/uniscale/registry"
    by_name = dict(tasks(ir))
    run_id = by_name["finish"]["inputs"]["parameters"]["run_id"]
    assert run_id["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"
    assert not by_name["logs"].get("cachingOptions", {}).get("enableCache")


@pytest.mark.parametrize("name", ["laptop", "cluster-cpu", "cluster-gpu"])
def test_profiles_ask_for_what_their_cluster_has(name) -> None:
    profile = load_profile(name)
    assert profile.pool_of("train") == profile.pools[profile.steps.get("train", "default")]
    assert any(pool.accelerators for pool in profile.pools.values()) == (name == "cluster-gpu")


def edited(**changes):
    """The GPU profile with keys changed; a dotted key reaches into it, None deletes."""
    raw = load_profile("cluster-gpu").model_dump()
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        node = raw
        for part in path:
            node = node[part]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return raw


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pull_polcy": "Always"}, "unknown key pull_polcy; did you mean pull_policy"),
        ({"pools__gpu__acelerators": 2}, r"unknown key pools\.gpu\.acelerators; did you mean accelerators"),
        ({"pools__gpu__retries": None}, r"missing key pools\.gpu\.retries"),
        ({"pools__gpu__retries": -1}, r"pools\.gpu\.retries = -1"),
        ({"pools__gpu__accelerators": 0}, r"pools\.gpu: give accelerator and accelerators both"),
        ({"pools__gpu__cpu_limit": "8 cores"}, r"pools\.gpu\.cpu_limit = '8 cores'"),
        ({"pools__gpu__memory_request": "128 GB"}, r"pools\.gpu\.memory_request = '128 GB'"),
        ({"pull_policy": "Sometimes"}, "pull_policy = 'Sometimes'"),
        ({"steps__train": "gup"}, "steps.train = 'gup' names no pool; did you mean gpu"),
        ({"pools__default": None}, "pools has no `default`"),
        ({"state": "/elsewhere"}, "state = '/elsewhere' lies on none of the volumes"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_path(tmp_path, changes, message) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(edited(**changes)))
    with pytest.raises(ConfigError, match=message):
        load_profile(str(tmp_path / "own.yaml"))


def test_a_profile_for_an_unknown_step_is_refused_when_compiling(config, tmp_path) -> None:
    profile = Profile.model_validate(edited(steps__trainn="gpu"))
    with pytest.raises(ConfigError, match=r"steps\.trainn is no step; did you mean train"):
        compile_to(config, tmp_path / "x.yaml", profile)


def test_a_profile_that_is_not_there_is_said(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no profile .*none\.yaml: copy one of profiles/"):
        load_profile(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_has_its_steps_settled_and_its_effects_uncached(name, compiled) -> None:
    ir, platform = yaml.load_all(compiled(name, "cluster-gpu").read_text(), yaml.CSafeLoader)
    assert {step_of(executor) for executor in ir["deploymentSpec"]["executors"]} == set(PIPELINES[name].steps)
    settled = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {step_of(executor) for executor in settled} == set(PIPELINES[name].steps)
    assert all(int(settings["activeDeadlineSeconds"]) > 0 for settings in settled.values())
    cached = {task for task, of in tasks(ir) if of.get("cachingOptions", {}).get("enableCache")}
    effects = {"preflight", "resolve", "seat", "promote", "reject", "summary", "finish"}
    effects |= {"check", "served", "skew", "retrain", "watched", "start", "comparison", "backfilled"}
    assert not {step_of(f"exec-{task}") for task in cached} & effects
    retried = {task for task, of in tasks(ir) if "retryPolicy" in of}
    dags = {task for task, of in tasks(ir) if "dag" in ir["components"][of["componentRef"]["name"]]}
    every = {task for task, _ in tasks(ir)}
    assert retried == every - dags - {"preflight", "finish"}


def test_monitoring_reads_by_default_what_serve_writes(compiled) -> None:
    ir = next(yaml.safe_load_all(compiled("monitoring", None).read_text()))
    read_from = ir["root"]["inputDefinitions"]["parameters"]["serving_log"]["defaultValue"]
    assert Path(read_from) == inspect.signature(serve).parameters["log"].default


@pytest.mark.parametrize("name", PIPELINES)
def test_nothing_starts_before_the_preflight_has_passed(name, compiled) -> None:
    ir = next(yaml.safe_load_all(compiled(name, "cluster-gpu").read_text()))
    dags = [component["dag"]["tasks"] for component in ir["components"].values() if "dag" in component]
    (of_run,) = [dag for dag in dags if "preflight" in dag]
    assert [task for task, of in of_run.items() if not of.get("dependentTasks")] == ["preflight"]


def test_every_component_is_a_step_of_a_pipeline() -> None:
    files = {path.stem for path in (ROOT / "components").glob("*.py")} - {"__init__", "image"}
    assert files == {step for definition in PIPELINES.values() for step in definition.steps}


def test_a_loop_runs_side_by_side_on_a_cluster_and_one_at_a_time_here(compiled) -> None:
    limits = {}
    for profile in (None, "cluster-cpu"):
        ir = next(yaml.load_all(compiled("sweep", profile).read_text(), yaml.CSafeLoader))
        (loop,) = [task for _, task in tasks(ir) if "parameterIterator" in task]
        limits[profile] = loop["iteratorPolicy"]["parallelismLimit"]
    assert limits == {None: 1, "cluster-cpu": 8}
