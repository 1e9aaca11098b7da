"""The Spark application of the sample job: its program exists, takes these arguments, and sees its folders."""

import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pyspark
import yaml

from uniscale.config import load_config

ROOT = Path(__file__).resolve().parents[2]
JOB = yaml.safe_load((ROOT / "manifests" / "spark" / "samples.yaml").read_text())["spec"]


def test_the_program_is_the_images_and_takes_the_arguments():
    scheme, path = JOB["mainApplicationFile"].split("://")
    assert scheme == "local" and (ROOT / PurePosixPath(path).relative_to("/app")).exists()
    assert "WORKDIR /app" in (ROOT / "Dockerfile").read_text()
    known = (ROOT / PurePosixPath(path).relative_to("/app")).read_text()
    given = dict(argument.removeprefix("--").split("=", 1) for argument in JOB["arguments"])
    for option in given:
        assert f'("{option}",' in known or f'"--{option}"' in known, option
    load_config(overrides=[given["set"]])  # a key of params.yaml


def test_every_pod_mounts_the_folders_that_are_named():
    volumes = {volume["name"] for volume in JOB["volumes"]}
    folders = [value for _, _, value in (a.partition("=") for a in JOB["arguments"]) if value.startswith("/")]
    for pod in (JOB["driver"], JOB["executor"]):
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["volumeMounts"]}
        assert set(mounts) == volumes
        assert all(any(PurePosixPath(f).is_relative_to(m) for m in mounts.values()) for f in folders)


def test_version_and_image_are_those_of_the_project():
    assert JOB["sparkVersion"] == pyspark.__version__
    target = JOB["image"].rpartition(":")[2]
    assert re.search(rf"^FROM \S+ AS {target}$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_the_program_runs_and_says_what_it_wants():
    command = [sys.executable, "-m", "features.es3", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"--{name}" in shown for name in ("logs", "features", "out", "previous", "set"))
