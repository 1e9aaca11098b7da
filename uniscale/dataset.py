"""Versions of a dataset as DVC and git know them: which one a run reads, which there were, one brought back by name.

What is recorded is read from DVC's and git's own files, so that no step needs DVC; only bringing one back runs it.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from uniscale.artifacts import atomic_folder
from uniscale.errors import DataError

HASH_DIGITS = 6  # least digits of a hash that name a version


@dataclass(frozen=True)
class DataVersion:
    """A content that a path has had: its DVC hash, and the commit that brought it."""

    hash: str
    revision: str  # 12 hex digits
    at: str  # ISO 8601
    author: str
    message: str

    @property
    def name(self) -> str:
        """As runs and registered models record it."""
        return f"{self.hash}@{self.revision}"


def dataset_version(path: Path) -> str:
    """`<DVC hash>` of a tracked file or folder, with `@<git revision>` where it lies in a git checkout; else empty.

    A path is tracked by its own `<name>.dvc` file or as an output of a stage, in the `dvc.lock` of a folder above; one
    that `pin` wrote names the revision it was taken from.
    """
    path = Path(path).resolve()
    for file in _records(path):
        text = file.read_text()
        found = _hash_of(text, file.parent, path)
        if found:
            taken = ((yaml.safe_load(text) or {}).get("meta") or {}).get("revision")
            revision = taken or _git(path.parent, "rev-parse", "HEAD")[:12]
            return f"{found}@{revision}" if revision else found
    return ""


def versions(path: Path) -> list[DataVersion]:
    """Every content that git's history has of a tracked path, the newest first; one that came back is there twice.

    Raises:
        DataError: the path is not tracked, or lies in no git checkout.
    """
    path = Path(path).resolve()
    record = next(_records(path), None)
    if record is None:
        raise DataError(
            f"{path} is not tracked by DVC: `dvc add` it, or make it by a stage of dvc.yaml, and commit that"
        )
    # %x1f between fields: no message holds it
    asked = _git(record.parent, "log", "--format=%H%x1f%cI%x1f%an%x1f%s", "--", record.name)
    if not asked:
        raise DataError(f"{record} is in no commit: versions are the commits that changed it, so commit it")
    found: list[DataVersion] = []
    for line in asked.splitlines():
        commit, at, author, message = line.split("\x1f")
        text = _git(record.parent, "show", f"{commit}:./{record.name}")
        content = _hash_of(text, record.parent, path)
        if content and found and found[-1].hash == content:
            found.pop()  # the commit below is the one that brought this content
        if content:
            found.append(DataVersion(content, commit[:12], at, author, message))
    return found


def find_version(path: Path, name: str) -> DataVersion:
    """A version by a commit, tag or branch of git, or by the first digits of its DVC hash.

    Raises:
        DataError: there is none, or several fit.
    """
    path = Path(path).resolve()
    known = versions(path)
    wanted = name.partition("@")[0]
    fitting = {v.hash: v for v in known if len(wanted) >= HASH_DIGITS and v.hash.startswith(wanted)}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    commit = _git(path.parent, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    record = next(_records(path))
    content = _hash_of(_git(record.parent, "show", f"{commit}:./{record.name}"), record.parent, path) if commit else ""
    if content:
        newest = next((v for v in known if v.hash == content), None)
        at, author, message = _git(path.parent, "log", "-1", "--format=%cI%x1f%an%x1f%s", commit).split("\x1f")
        return DataVersion(content, commit[:12], at, author, message) if newest is None else newest
    listed = ", ".join(f"{v.hash[:8]} ({v.revision})" for v in known[:5]) or "none"
    what = "several versions" if fitting else "no version"
    raise DataError(f"{path} has {what} {name!r}; there are, newest first: {listed}; `uniscale data log` shows all")


def pin(path: Path, version: DataVersion, out: Path) -> Path:
    """Bring a version back into a folder named by its hash below `out`, for good; from DVC's cache, or its remote.

    Raises:
        DataError: its content is neither in the cache nor in the remote.
    """
    path = Path(path).resolve()
    target = Path(out).resolve() / version.hash.removesuffix(".dir") / path.name
    record = target.with_name(f"{target.name}.dvc")
    if record.exists():
        return target
    root = Path(_git(path.parent, "rev-parse", "--show-toplevel"))
    with atomic_folder(target.parent) as scratch:
        asked = [sys.executable, "-m", "dvc", "get", str(root), str(path.relative_to(root)), "--rev", version.revision]
        done = subprocess.run([*asked, "--out", str(scratch / path.name)], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise DataError(
                f"version {version.name} of {path} is on record, its content cannot be had: {' '.join(said)[-400:]}; "
                "`dvc push` it where it was made, and `dvc remote add` that remote here"
            )
        kept = {"outs": [{"md5": version.hash, "path": path.name}], "meta": {"revision": version.revision}}
        (scratch / record.name).write_text(yaml.safe_dump(kept))
    return target


def _records(path: Path) -> Iterator[Path]:
    candidates = [path.with_name(path.name + ".dvc"), *(folder / "dvc.lock" for folder in path.parents)]
    return (file for file in candidates if file.is_file() and _hash_of(file.read_text(), file.parent, path))


def _hash_of(text: str, folder: Path, path: Path) -> str:
    """Hash that the text of a `.dvc` file or a `dvc.lock` in `folder` has for a path, empty for none."""
    record = yaml.safe_load(text) or {}
    for part in (record, *(record.get("stages") or {}).values()):
        for output in part.get("outs") or []:
            if folder / output["path"] == path:
                return str(output.get("md5", ""))
    return ""


def _git(folder: Path, *arguments: str) -> str:
    """What git answers, stripped; empty where it refuses or is not there."""
    try:
        asked = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""
