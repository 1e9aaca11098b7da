"""A dataset's version is read from the records of DVC and git that are there, and is empty where there are none."""

import subprocess

import yaml

from uniscale.dataset import dataset_version


def test_a_folder_tracked_by_its_own_file(tmp_path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs.dvc").write_text(yaml.safe_dump({"outs": [{"md5": "a1.dir", "path": "logs"}]}))
    assert dataset_version(tmp_path / "logs") == "a1.dir"


def test_an_output_of_a_stage_in_a_git_checkout(tmp_path) -> None:
    stages = {"logs": {"outs": [{"path": "data/other", "md5": "x"}, {"path": "data/logs", "md5": "b2.dir"}]}}
    (tmp_path / "data" / "logs").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "dvc.lock"], [*who, "commit", "-qm", "data"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    asked = ["git", "-C", str(tmp_path), "rev-parse", "HEAD"]
    head = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert dataset_version(tmp_path / "data" / "logs") == f"b2.dir@{head[:12]}"


def test_an_untracked_folder_has_none(tmp_path) -> None:
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    assert dataset_version(tmp_path / "logs") == ""
