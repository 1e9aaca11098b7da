"""The record of a run on this machine: what it was given, what ran, how it ended; and the search for one cut off."""

import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.console import StepRecord
from uniscale.artifacts import read_json, source_hash, write_json
from uniscale.config import Config
from uniscale.dataset import dataset_version
from uniscale.errors import UniscaleError

PACKAGES = ("bentoml", "dvc", "evidently", "feast", "kfp", "mlflow-skinny", "pyspark", "torch", "uniscale")


def new_manifest(config: Config, pipeline: str, fingerprint: str, input_hash: str, champion: str) -> dict[str, Any]:
    """The manifest of a run that starts now; `champion` is the version that its candidate has to beat."""
    now = datetime.now(UTC)
    return {
        "id": f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        "pipeline": pipeline,
        "status": "running",
        "data": config.data.source,
        "model": config.model.name,
        "seed": config.seed,
        "versions": {package: metadata.version(package) for package in PACKAGES} | {"source": source_hash()},
        "fingerprint": fingerprint,
        "input_hash": input_hash,
        "data_version": dataset_version(Path(config.data.input)) if config.data.input else "",
        "champion_version": champion,
        "started": now.isoformat(timespec="seconds"),
        "config": config.model_dump(),
    }


def unfinished(root: Path, fingerprint: str) -> dict[str, Any] | None:
    """The newest run of a fingerprint that did not complete.

    Raises:
        UniscaleError: it is in progress.
    """
    for path in sorted(root.glob("*/manifest.json"), reverse=True):
        manifest: dict[str, Any] = read_json(path)
        if manifest.get("fingerprint") != fingerprint or manifest["status"] == "completed":
            continue
        if _alive(manifest.get("pid")):
            raise UniscaleError(
                f"run {manifest['id']} of the same configuration is in progress (process {manifest['pid']}): "
                "wait for it, stop it, or start another with --fresh"
            )
        return manifest
    return None


def close(manifest: dict[str, Any], known: Sequence[str], ran: Mapping[str, StepRecord], folder: Path) -> None:
    """Complete a manifest from what ran and from the summary step, and write it.

    Args:
        manifest: with the status that the run ended with.
        known: the pipeline's steps in a reader's order.
        ran: steps that ran or came from the cache; of a completed run, a decision has left out the others.
        folder: of the run.
    """
    absent = "not taken" if manifest["status"] == "completed" else "not run"
    steps = []
    for step in known:
        found = ran.get(step, StepRecord(step, status=absent))
        steps.append({"name": step, "seconds": found.seconds, "status": found.status})
    manifest["steps"] = steps
    manifest.pop("pid", None)
    manifest["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    if manifest["status"] == "completed":
        manifest.update(read_json(folder / "summary.json"))
    write_json(folder / "manifest.json", manifest)


def _alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
