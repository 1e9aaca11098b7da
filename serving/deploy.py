"""From trained models to a deployment: an immutable folder with all that a service needs, and the Bento built from it.

A deployment folder holds `deployment.json`, `examples.json` (users and queries to try it with), `models/<version>/`
(`serving.export`), `features/` (spec, items, text encoder, Feast store), `bentoml/` (a BentoML home with the one
Bento) and `Containerfile`. `serving.process` runs it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import uniscale
from features.catalogue import COUNT_NAMES
from features.store.repository import add_models
from serving.deployment import EXAMPLES as EXAMPLES_FILE
from serving.deployment import FILE, Deployment, Examples
from serving.export import export
from serving.process import environment, running, store_of, tail
from uniscale.artifacts import atomic_folder, content_hash, read_json, source_hash
from uniscale.config import Config, embedded_values
from uniscale.errors import ConfigError, MissingToolError, ServingError
from uniscale.hashing import unit_interval
from uniscale.samples import SampleSpec

__all__ = ["package", "popularity_feature", "running", "store_of"]

PACKAGES = ("uniscale", "features", "models", "serving")  # what the service's worker imports of ours
FEATURES = (  # what serving reads, and what a stream of behaviours needs (`features.store.online.push_behaviours`)
    "spec.json",
    "description.json",
    "report.json",
    "items.parquet",
    "text_encoder",
    "store",
    "tables/item_versions.parquet",
)
BUILD_SECONDS = 300.0
EXAMPLES = 200  # users and queries kept to try the service with


def package(
    config: Config, features: Path, variants: Mapping[str, Path], versions: Mapping[str, str], out: Path
) -> dict[str, Any]:
    """Build the deployment of some variants.

    Args:
        config: sections serving and experiment (salt, weights).
        features: features folder; its Feast store is copied as it is.
        variants: variant -> model folder; two variants may share one (an A/A).
        versions: variant -> version of its model, as the registry knows it.
        out: the deployment folder, whole or absent.

    Returns:
        What `deployment.json` holds.

    Raises:
        ConfigError: variants, versions and weights name different variants, or one version two models.
        ServingError: a model was trained on other features, a weight does not fit into float16, or the Bento could
            not be built.
        MissingToolError: `uv`, which building a Bento calls, is not there.
    """
    features, out = Path(features), Path(out)
    spec = SampleSpec.load(features)
    weights = _weights(config, variants)
    models = _models(variants, versions)
    read = {f"model_{version}": _spec_of(model, spec) for version, model in models.items()}
    popularity = popularity_feature(spec)
    holds = next(f.view for f in spec.features if f.name == popularity)
    read["fallback"] = spec.without({view for view in spec.views if view != holds})
    with atomic_folder(out) as folder:
        for version, model in models.items():
            export(model, folder / "models" / version)
        for name in (name for name in FEATURES if (features / name).exists()):
            target = folder / "features" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (features / name).is_dir() else shutil.copy2)(features / name, target)
        code = source_hash()
        deployment = Deployment(
            tag=f"uniscale_ranker:{content_hash(folder)[:12]}-{code}",
            versions=dict(versions),
            weights=weights,
            mode=config.experiment.mode,
            salt=config.experiment.salt,
            domain=spec.domains[0],
            scenarios=list(spec.scenarios),
            tasks=list(spec.tasks),
            services=sorted(read),
            views=[view for view in spec.views if any(view in own.views for own in read.values())],
            popularity=popularity,
            source_hash=code,
            serving=config.serving,
        )
        add_models(folder / "features", read)
        deployment.save(folder)
        _examples(features).save(folder)
        _build_bento(deployment, folder)
    return deployment.model_dump()


def popularity_feature(spec: SampleSpec) -> str:
    """The count of the primary task's events on an item over the longest window.

    Raises:
        ServingError: the spec has no such feature.
    """
    task = spec.tasks[0]
    pattern = re.compile(rf"item_{COUNT_NAMES.get(task, f'{task}_events')}_(\d+)d")
    windows = {int(match[1]): f.name for f in spec.select("candidate") if (match := pattern.fullmatch(f.name))}
    if not windows:
        raise ServingError(f"no item feature counts the events of {task}, so no fallback order: add it to the features")
    return windows[max(windows)]


def _examples(features: Path) -> Examples:
    """The users and queries of the newest daily statistics, a fixed choice of them."""
    chosen = {}
    for key, table in (("user_id", "user_statistics"), ("query", "query_statistics")):
        path = features / "tables" / f"{table}.parquet"
        names = pq.ParquetFile(path).read(columns=[key])[key].unique().to_pylist() if path.exists() else []
        chosen[key] = sorted(names, key=unit_interval)[:EXAMPLES]
    return Examples(users=chosen["user_id"] or ["newcomer"], queries=chosen["query"])


def _weights(config: Config, variants: Mapping[str, Path]) -> dict[str, float]:
    weights = dict(config.experiment.weights)
    if set(weights) != set(variants):
        raise ConfigError(
            f"experiment.weights names {sorted(weights)}, the variants given are {sorted(variants)}: make them agree"
        )
    return weights


def _models(variants: Mapping[str, Path], versions: Mapping[str, str]) -> dict[str, Path]:
    """Version -> model folder, each once."""
    if set(versions) != set(variants):
        raise ConfigError(f"versions are given for {sorted(versions)}, models for {sorted(variants)}")
    models: dict[str, Path] = {}
    for variant, version in versions.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", version):
            raise ConfigError(f"version {version!r} of {variant} cannot name a folder: use letters, digits, . _ -")
        model = Path(variants[variant])
        other = models.setdefault(version, model)
        if other != model and content_hash(other) != content_hash(model):
            raise ConfigError(f"version {version} names two models, {other} and {model}: give each its own version")
    return models


def _spec_of(model: Path, spec: SampleSpec) -> SampleSpec:
    """What a model reads, of what the features folder offers."""
    card = model / "model.json"
    if not card.exists():
        raise ServingError(f"no model.json in {model}: give a folder that training wrote")
    trained = SampleSpec.from_json(read_json(card)["spec"])
    if not spec.covers(trained):
        lacking = sorted({f.name for f in trained.features} - {f.name for f in spec.features})
        raise ServingError(
            f"{model} was trained on other features than those to deploy (they lack {lacking}, or order and widths "
            "differ): deploy it with its own features, or train it again"
        )
    return trained


def _build_bento(deployment: Deployment, folder: Path) -> None:
    """Put our packages and the deployment into a context folder and build the Bento there, in its own process."""
    if not shutil.which("uv", path=environment(folder)["PATH"]):
        raise MissingToolError("building a Bento calls uv, which is not on PATH: python -m pip install uv")
    context, home = folder / ".context", folder / "bentoml"
    home.mkdir()
    root = Path(uniscale.__file__).resolve().parent.parent
    for name in PACKAGES:
        shutil.copytree(root / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    (context / "uniscale" / "params.yaml").write_text(embedded_values())
    for name in ("models", "features"):
        shutil.copytree(folder / name, context / "deployment" / name, copy_function=os.link)
    for name in (FILE, EXAMPLES_FILE):
        os.link(folder / name, context / "deployment" / name)
    version = deployment.tag.partition(":")[2]
    command = [sys.executable, "-m", "serving.bento", version, str((folder / "Containerfile").resolve())]
    try:
        done = subprocess.run(
            command,
            cwd=context,
            env=environment(home.resolve()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ServingError(
            f"building the Bento took more than {BUILD_SECONDS:g} s: is the disk full or slow?"
        ) from None
    if done.returncode:
        raise ServingError(f"the Bento could not be built:\n{tail(done.stdout + done.stderr)}")
    shutil.rmtree(context)
