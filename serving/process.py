"""A deployment as a process: `bentoml serve` on its own port, ready before it is used, ended whatever happens.

Nothing in the deployment changes while it runs. What does is below the folder of the serving log, under names that
readers of Parquet skip: a copy of the features, whose online store streams push to, BentoML's home, and the output.
"""

import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.deployment import Deployment
from uniscale.config import Config
from uniscale.errors import ConfigError, ServingError

LIVE, HOME, ROUTING, OUTPUT = "_features", "_bentoml", "_routing.json", "_server.log"
# Longer than clients and most proxies keep idle connections, or it closes one just as a request comes (BentoML: 5 s).
KEEP_ALIVE = ("--timeout-keep-alive", "75")
START_SECONDS, STOP_SECONDS = 120.0, 15.0
QUOTED_LINES = 25


@contextmanager
def running(
    config: Config, deployment: Path, log: Path, start_seconds: float = START_SECONDS, routing: Path | None = None
) -> Iterator[str]:
    """Serve a deployment while the block runs; yields the URL once `/readyz` answers 200.

    Args:
        config: section serving: host, port (0: a free one), workers.
        deployment: as `package` wrote it.
        log: folder of the serving log; the process's own output goes to `_server.log` in it, and the copy of the
            features that the service reads to `store_of(log)`.
        start_seconds: time it may take to be ready.
        routing: routing file to follow; by default `routing_of(log)`, which does not outlive the process.

    Raises:
        ConfigError: a host off loopback without UNISCALE_API_KEY.
        ServingError: UNISCALE_API_KEY_FILE holds no key; the service died or was not ready in time, and its last words.
    """
    deployment, log = Path(deployment).resolve(), Path(log).resolve()
    manifest = Deployment.load(deployment)
    host = _checked_host(config.serving.host)
    port = config.serving.port or _free_port(host)
    _prepare(deployment, log)
    variables = {
        **environment(log / HOME),
        "BENTOML_CONFIG_OPTIONS": f"services.uniscale_ranker.workers={config.serving.workers}",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "UNISCALE_FEATURES": str(store_of(log)),
        "UNISCALE_OWNER": str(os.getpid()),
        "UNISCALE_ROUTING": str(Path(routing).resolve() if routing else routing_of(log)),
        "UNISCALE_SERVING_LOG": str(log),
    }
    command = [sys.executable, "-m", "bentoml", "serve", manifest.tag, "--host", host, "--port", str(port), *KEEP_ALIVE]
    url = f"http://{host}:{port}"
    with (log / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log / HOME,
            env=variables,
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
            routing_of(log).unlink(missing_ok=True)


def store_of(log: Path) -> Path:
    """The features folder that the service writing this serving log reads while it runs; streams push to it."""
    return Path(log) / LIVE


def routing_of(log: Path) -> Path:
    """The routing file that the service writing this serving log follows unless it was given another."""
    return Path(log) / ROUTING


def environment(home: Path) -> dict[str, str]:
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


def api_key(environment: Mapping[str, str]) -> str | None:
    """The key that clients must send, None where there is none.

    Raises:
        ServingError: the file that should hold it cannot be read or is empty.
    """
    path = environment.get("UNISCALE_API_KEY_FILE")
    if not path:
        return environment.get("UNISCALE_API_KEY") or None
    try:
        key = Path(path).read_text().strip()
    except OSError as error:
        raise ServingError(f"UNISCALE_API_KEY_FILE names {path}, which cannot be read: {error.strerror}") from None
    if not key:
        raise ServingError(f"{path} is empty, and an empty key is everyone's: write the API key into it")
    return key


def end_with(owner: int, stop: Callable[[], None], interval_seconds: float = 1.0) -> None:
    """Call `stop` once process `owner` is gone: a run that was killed leaves no service behind."""
    with suppress(ProcessLookupError):
        while True:
            os.kill(owner, 0)
            time.sleep(interval_seconds)
    stop()


def tail(text: str) -> str:
    """The last lines of a process's output, for an error message."""
    return "\n".join(text.splitlines()[-QUOTED_LINES:])


def _prepare(deployment: Path, log: Path) -> None:
    """What the process may write to: a copy of the features, and a BentoML home with the deployment's Bento in it."""
    for name in (LIVE, HOME):
        shutil.rmtree(log / name, ignore_errors=True)
    routing_of(log).unlink(missing_ok=True)
    shutil.copytree(deployment / "features", store_of(log))
    (log / HOME).mkdir()
    (log / HOME / "bentos").symlink_to(deployment / "bentoml" / "bentos")


def _checked_host(host: str) -> str:
    try:
        local = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        raise ConfigError(f"serving.host is {host!r}: give an IPv4 address such as 127.0.0.1") from None
    if api_key(os.environ) is None and not local:
        raise ConfigError(f"serving.host is {host}, off loopback: set UNISCALE_API_KEY, or serve on 127.0.0.1")
    return host


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _await_ready(process: subprocess.Popen, url: str, output: Path, start_seconds: float) -> None:
    deadline = time.monotonic() + start_seconds
    state = "it did not answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingError(f"the service ended with code {process.returncode}:\n{tail(output.read_text())}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except urllib.error.HTTPError as error:
            state = error.read().decode(errors="replace")
        except OSError:
            pass  # nobody listens yet
        time.sleep(0.1)
    raise ServingError(f"the service was not ready in {start_seconds:g} s ({state}):\n{tail(output.read_text())}")


def _stop(process: subprocess.Popen) -> None:
    """Ask the supervisor to end its workers, which finish what they accepted; then end whatever is left."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader where a worker does
    process.wait()
