"""Versions of a dataset in a git checkout with DVC: listed, found by any of their names, brought back, told apart."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.features.log_folder import random_logs
from uniscale.artifacts import content_hash
from uniscale.cli import app
from uniscale.dataset import dataset_version, find_version, pin, versions
from uniscale.errors import ConfigError, DataError

WHO = ["-c", "user.name=ann", "-c", "user.email=a@b"]


def git(folder, *arguments):
    return subprocess.run(
        ["git", *WHO, "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout


def dvc(folder, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Two versions of a log folder, tagged, and a commit that changes neither; hashes of their contents."""
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q")
    dvc(root, "init", "--quiet")
    contents = []
    for number, message in enumerate(("January", "January, with what came late")):
        logs = random_logs()
        if number:
            for row in logs.items:
                row["price"] *= 3
            logs.events = logs.events[::2]
        else:
            logs.requests = [row for row in logs.requests if row["device"] == "phone" or row["ts"].day < 17]
        logs.write(root / "logs")
        contents.append(content_hash(root / "logs"))
        dvc(root, "add", "--quiet", "logs")
        git(root, "add", ".")
        git(root, "commit", "-qm", message)
        git(root, "tag", f"v{number + 1}")
    (root / "notes.txt").write_text("nothing")
    git(root, "add", ".")
    git(root, "commit", "-qm", "Notes")
    return root, contents


def test_every_content_is_a_version_and_the_present_one_is_the_newest(repository):
    root, _ = repository
    found = versions(root / "logs")
    assert [version.message for version in found] == ["January, with what came late", "January"]
    assert {version.author for version in found} == {"ann"} and len({version.hash for version in found}) == 2
    assert dataset_version(root / "logs").startswith(f"{found[0].hash}@")


def test_a_version_is_found_by_commit_tag_branch_and_hash(repository):
    root, _ = repository
    newest, first = versions(root / "logs")
    names = ("v1", first.revision, first.hash, first.hash[:8], first.name, "HEAD~2")
    assert {find_version(root / "logs", name) for name in names} == {first}
    assert find_version(root / "logs", "HEAD") == newest


def test_a_pinned_version_is_its_content_names_it_and_is_fetched_once(repository, tmp_path):
    root, contents = repository
    first = find_version(root / "logs", "v1")
    folder = pin(root / "logs", first, tmp_path)
    assert content_hash(folder) == contents[0] and content_hash(root / "logs") == contents[1]
    assert dataset_version(folder) == first.name  # what a run on it keeps as its lineage
    (folder / "description.json").unlink()
    assert pin(root / "logs", first, tmp_path) == folder and not (folder / "description.json").exists()


def test_what_changed_is_told(repository, tmp_path):
    root, _ = repository
    done = CliRunner().invoke(app, ["data", "diff", str(root / "logs"), "v1", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    before, after = found["tables"]["requests"]["rows"]
    assert before < after and found["tables"]["users"]["rows"] == [20, 20]
    was, now = found["label_rates"]["click"]
    assert 0 < now < 0.7 * was
    drifted = {(row["table"], row["column"]) for row in found["drift"]}
    assert ("items", "price") in drifted and not drifted & {
        ("items", "title"),
        ("users", "gender"),
        ("items", "rating"),
    }
    assert found["description"] == {}
    page = CliRunner().invoke(app, ["data", "diff", str(root / "logs"), "v1", "v2", "--out", str(tmp_path)]).stdout
    assert "items.price" in page and "Positive events an exposure" in page


def test_the_log_and_pin_verbs_are_doors_to_the_same(repository, tmp_path):
    root, _ = repository
    listed = json.loads(CliRunner().invoke(app, ["data", "log", str(root / "logs"), "--json"]).stdout)
    assert [one["hash"] for one in listed] == [version.hash for version in versions(root / "logs")]
    printed = CliRunner().invoke(app, ["data", "pin", str(root / "logs"), "v1", "--out", str(tmp_path)]).stdout.strip()
    assert dataset_version(tmp_path / listed[1]["hash"].removesuffix(".dir") / "logs") == dataset_version(printed)


def test_a_version_that_does_not_exist_is_an_error_at_once(repository, tmp_path):
    root, _ = repository
    arguments = ["run", "--data", "logs", "--input", str(root / "logs"), "--runs", str(tmp_path), "--data-version"]
    done = CliRunner().invoke(app, [*arguments, "v7"])
    with pytest.raises(DataError, match=r"has no version 'v7'; there are, newest first: .*uniscale data log"):
        raise done.exception
    assert not list(tmp_path.iterdir())  # before anything is computed
    with pytest.raises(ConfigError, match="--data-version v1 is a version of --input"):
        raise CliRunner().invoke(app, ["run", "--data-version", "v1"]).exception


def test_a_version_whose_content_is_gone_and_a_path_nobody_tracks_are_said(repository, tmp_path):
    root, _ = repository
    with pytest.raises(DataError, match="not tracked by DVC"):
        versions(root / "notes.txt")
    git(tmp_path, "clone", "-q", str(root), "clone")
    clone = tmp_path / "clone"
    with pytest.raises(DataError, match=r"content cannot be had: .*dvc push"):
        pin(clone / "logs", find_version(clone / "logs", "v1"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/logs"))
