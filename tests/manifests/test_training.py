"""The job of Kubeflow's trainer: its image exists, its command is one, and every folder that it names is mounted."""

import re
from pathlib import Path, PurePosixPath

import yaml
from typer.main import get_command

from uniscale.cli import app
from uniscale.config import load_config

ROOT = Path(__file__).resolve().parents[2]
JOB = yaml.safe_load((ROOT / "manifests" / "training" / "train.yaml").read_text())["spec"]
TRAINER = JOB["trainer"]
GIVEN = [argument.partition("=")[::2] for argument in TRAINER["args"][1:]]


def test_the_command_takes_the_arguments():
    assert TRAINER["command"] == ["torchrun", "-m", "uniscale.cli"] and (ROOT / "uniscale/cli/__main__.py").exists()
    verb = get_command(app).commands[TRAINER["args"][0]]  # type: ignore[attr-defined]
    known = {option for parameter in verb.params for option in parameter.opts}
    assert {option for option, _ in GIVEN} <= known
    load_config(overrides=[value for option, value in GIVEN if option == "--set"])  # keys of params.yaml


def test_every_process_has_a_device_and_the_image_is_a_target():
    assert TRAINER["numProcPerNode"] == int(TRAINER["resourcesPerNode"]["limits"]["nvidia.com/gpu"])
    target = TRAINER["image"].rpartition(":")[2]
    assert re.search(rf"^FROM \S+ AS {target}$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_every_pod_mounts_the_folders_that_are_named():
    (patch,) = JOB["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    folders = [value for _, value in GIVEN if value.startswith("/")]
    assert len(folders) == 3
    assert all(any(PurePosixPath(f).is_relative_to(m) for m in mounts.values()) for f in folders)
