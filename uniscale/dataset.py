"""Which version of a dataset a run reads, as DVC and git know it: read from their files, so that no step needs DVC."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml


def dataset_version(path: Path) -> str:
    """`<DVC hash>` of a tracked file or folder, with `@<git revision>` where it lies in a git checkout; else empty.

    A path is tracked by its own `<name>.dvc` file or as an output of a stage, in the `dvc.lock` of a folder above.
    """
    path = Path(path).resolve()
    hashes = (found for file in _records(path) for name, found in _outputs(file) if (file.parent / name) == path)
    found = next(hashes, "")
    if not found:
        return ""
    revision = _revision(path.parent)
    return f"{found}@{revision}" if revision else found


def _records(path: Path) -> Iterator[Path]:
    candidates = [path.with_name(path.name + ".dvc"), *(folder / "dvc.lock" for folder in path.parents)]
    return (file for file in candidates if file.is_file())


def _outputs(file: Path) -> Iterator[tuple[str, str]]:
    """Path, relative to the file's folder, and hash of every output that a `.dvc` file or a `dvc.lock` names."""
    record = yaml.safe_load(file.read_text()) or {}
    for part in (record, *(record.get("stages") or {}).values()):
        for output in part.get("outs") or []:
            yield output["path"], output.get("md5", "")


def _revision(folder: Path) -> str:
    try:
        asked = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return asked.stdout.strip()[:12] if asked.returncode == 0 else ""
