"""The build commands make exactly the images that the compiled pipeline asks for."""

import re
from pathlib import Path

import pytest
import yaml

from pipelines.images import build, build_commands, builder
from uniscale.errors import MissingToolError, UniscaleError
from uniscale.profile import load_profile

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["laptop", "cluster-gpu"])
def test_every_image_of_the_ir_is_built_from_a_target_of_the_dockerfile(name, compiled) -> None:
    profile = load_profile(name)
    executors = next(yaml.load_all(compiled(profile=name).read_text(), yaml.CSafeLoader))["deploymentSpec"]["executors"]
    commands = build_commands(profile)
    tags = {command[command.index("--tag") + 1] for command in commands}
    assert tags == {executor["container"]["image"] for executor in executors.values()}
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert {command[command.index("--target") + 1] for command in commands} <= targets


def test_images_are_pushed_after_they_are_built() -> None:
    profile = load_profile("cluster-cpu")
    verbs = [command[1] for command in build_commands(profile, "podman", push=True)]
    assert verbs == ["build", "push"] * len(profile.targets())


def test_the_builder_is_the_one_that_is_there() -> None:
    assert builder(lambda tool: tool == "podman") == "podman"
    assert builder(lambda tool: False) is None


def test_a_client_without_its_daemon_does_not_count(tmp_path, monkeypatch) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "podman").write_text("#!/bin/sh\nexit 0\n")
    for tool in ("docker", "podman"):
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert builder() == "podman"


def test_a_build_that_fails_ends_the_rest_and_says_which(tmp_path) -> None:
    with pytest.raises(MissingToolError, match="no Dockerfile in"):
        build([["true"]], tmp_path)
    (tmp_path / "Dockerfile").write_text("")
    with pytest.raises(UniscaleError, match="false ended with 1"):
        build([["true"], ["false"], ["touch", "reached"]], tmp_path)
    assert not (tmp_path / "reached").exists()
