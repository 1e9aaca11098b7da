"""Files as artifacts: whole or absent, content-hashed, traceable to the source that wrote them."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uniscale.errors import DataError

PACKAGES = ("uniscale", "features", "models", "serving", "monitoring", "simulation", "components", "pipelines")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder beside `target` and move it there when the block succeeds.

    A reader therefore sees the whole folder or none; after an error or a kill only a `.partial-*` sibling is left,
    which the next attempt removes. An existing target is replaced.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".partial-{target.name}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    scratch = target.parent / f".partial-{target.name}-{uuid.uuid4().hex[:8]}"
    scratch.mkdir()
    yield scratch
    if target.exists():
        shutil.rmtree(target)
    os.replace(scratch, target)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in insertion order, NaN refused (a metric that is NaN must be null and explained)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    scratch.write_text(json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n")
    os.replace(scratch, path)


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is a DataError that names it."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise DataError(f"no file {path}: the step that writes it has not finished") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON ({error}): mend it, or run the step that writes it again") from None


def content_hash(path: Path) -> str:
    """Hash of a file's bytes, or of a folder's relative names and bytes (hidden files left out): 32 hex digits."""
    path = Path(path)
    digest = hashlib.blake2b(digest_size=16)
    if path.is_file():
        files = [path]
    else:
        files = sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
    for file in files:
        digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def source_hash() -> str:
    """Hash of the installed project's own Python source: 12 hex digits, the tag of the component image.

    Pipeline caches key on the image, so a change of code changes the key and never meets a stale result.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.blake2b(digest_size=6)
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):  # numpy and torch scalars
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
