"""From trained models to a running service: an immutable deployment folder, the Bento built from it, its process.

A deployment folder holds `deployment.json`, `models/<version>/` (model.json, float16 model.safetensors), `features/`
(spec, items, text encoder, Feast store), `bentoml/` (a BentoML home with the one Bento) and `Containerfile`. Nothing
in it changes while the service runs: the online store, which streams push to, is copied beside the serving log.
"""

import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import uniscale
from features.catalogue import COUNT_NAMES
from serving.deployment import EXAMPLES as EXAMPLES_FILE
from serving.deployment import FILE, Deployment, Examples
from serving.weights import export_half
from uniscale.artifacts import atomic_folder, content_hash, read_json, source_hash
from uniscale.config import Config
from uniscale.errors import ConfigError, MissingToolError, ServingError
from uniscale.hashing import unit_interval
from uniscale.samples import SampleSpec

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
# Below the serving log, where readers of Parquet skip names that begin with an underscore:
LIVE, HOME, OUTPUT = "_features", "_bentoml", "_server.log"
BUILD_SECONDS, START_SECONDS, STOP_SECONDS = 300.0, 120.0, 15.0
QUOTED_LINES, EXAMPLES = 25, 200


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
    with atomic_folder(out) as folder:
        for version, model in _models(variants, versions).items():
            _check_spec(model, spec)
            export_half(model, folder / "models" / version)
        for name in (name for name in FEATURES if (features / name).exists()):
            target = folder / "features" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (features / name).is_dir() else shutil.copy2)(features / name, target)
        code = source_hash()
        deployment = Deployment(
            tag=f"uniscale_ranker:{content_hash(folder)[:12]}-{code}",
            versions=dict(versions),
            weights=weights,
            salt=config.experiment.salt,
            domain=spec.domains[0],
            scenarios=list(spec.scenarios),
            tasks=list(spec.tasks),
            popularity=popularity_feature(spec),
            source_hash=code,
            serving=config.serving,
        )
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


@contextmanager
def running(config: Config, deployment: Path, log: Path, start_seconds: float = START_SECONDS) -> Iterator[str]:
    """Serve a deployment while the block runs; yields the URL once `/readyz` answers 200.

    Args:
        config: section serving: host, port (0: a free one), workers.
        deployment: as `package` wrote it.
        log: folder of the serving log; the process's own output goes to `_server.log` in it, and the copy of the
            features that the service reads to `store_of(log)`.
        start_seconds: time it may take to be ready.

    Raises:
        ConfigError: a host off loopback without UNISCALE_API_KEY.
        ServingError: the service died or was not ready in time; quotes the end of its output.
    """
    deployment, log = Path(deployment).resolve(), Path(log).resolve()
    manifest = Deployment.load(deployment)
    host, port = config.serving.host, config.serving.port or _free_port(config.serving.host)
    _check_host(host)
    _prepare(deployment, log)
    environment = {
        **_environment(log / HOME),
        "BENTOML_CONFIG_OPTIONS": f"services.uniscale_ranker.workers={config.serving.workers}",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "UNISCALE_FEATURES": str(store_of(log)),
        "UNISCALE_SERVING_LOG": str(log),
    }
    command = [sys.executable, "-m", "bentoml", "serve", manifest.tag, "--host", host, "--port", str(port)]
    url = f"http://{host}:{port}"
    with (log / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log / HOME,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _await_ready(process, url, log / OUTPUT, start_seconds)
            yield url
        finally:
            _stop(process)
            for name in (LIVE, HOME):
                shutil.rmtree(log / name)


def store_of(log: Path) -> Path:
    """The features folder that the service writing this serving log reads while it runs; streams push to it."""
    return Path(log) / LIVE


def _prepare(deployment: Path, log: Path) -> None:
    """What the process may write to: a copy of the features, and a BentoML home with the deployment's Bento in it."""
    for name in (LIVE, HOME):
        shutil.rmtree(log / name, ignore_errors=True)
    shutil.copytree(deployment / "features", store_of(log))
    (log / HOME).mkdir()
    (log / HOME / "bentos").symlink_to(deployment / "bentoml" / "bentos")


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


def _check_spec(model: Path, spec: SampleSpec) -> None:
    card = model / "model.json"
    if not card.exists():
        raise ServingError(f"no model.json in {model}: give a folder that training wrote")
    trained = SampleSpec.from_json(read_json(card)["spec"])
    if trained != spec:
        differing = sorted({f.name for f in trained.features} ^ {f.name for f in spec.features})
        raise ServingError(
            f"{model} was trained on other features than those to deploy (only one has {differing}, or order and "
            "widths differ): deploy it with its own features, or train it again"
        )


def _build_bento(deployment: Deployment, folder: Path) -> None:
    """Put our packages and the deployment into a context folder and build the Bento there, in its own process."""
    if not shutil.which("uv", path=_environment(folder)["PATH"]):
        raise MissingToolError("building a Bento calls uv, which is not on PATH: python -m pip install uv")
    context, home = folder / ".context", folder / "bentoml"
    home.mkdir()
    root = Path(uniscale.__file__).resolve().parent.parent
    for name in PACKAGES:
        shutil.copytree(root / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
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
            env=_environment(home.resolve()),
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
        raise ServingError(f"the Bento could not be built:\n{_tail(done.stdout + done.stderr)}")
    shutil.rmtree(context)


def _environment(home: Path) -> dict[str, str]:
    """This environment with BentoML's home, our own interpreter's tools first, and no telemetry."""
    tools = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": tools + os.pathsep + os.environ.get("PATH", os.defpath),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
        "FEAST_USAGE": "False",
        "PYTHONUNBUFFERED": "1",
    }


def _check_host(host: str) -> None:
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ConfigError(f"serving.host is {host!r}, BentoML takes an address such as 127.0.0.1") from None
    if not local and not (os.environ.get("UNISCALE_API_KEY") or os.environ.get("UNISCALE_API_KEY_FILE")):
        raise ConfigError(f"serving.host is {host}, off loopback: set UNISCALE_API_KEY, or serve on 127.0.0.1")


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _await_ready(process: subprocess.Popen, url: str, output: Path, start_seconds: float) -> None:
    deadline = time.monotonic() + start_seconds
    state = "it did not answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingError(f"the service ended with code {process.returncode}:\n{_tail(output.read_text())}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except urllib.error.HTTPError as error:
            state = error.read().decode(errors="replace")
        except OSError:
            pass  # nobody listens yet
        time.sleep(0.1)
    raise ServingError(f"the service was not ready in {start_seconds:g} s ({state}):\n{_tail(output.read_text())}")


def _stop(process: subprocess.Popen) -> None:
    """Ask the supervisor to end its workers, which finish what they accepted; then end whatever is left."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader where a worker does
    process.wait()


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-QUOTED_LINES:])
