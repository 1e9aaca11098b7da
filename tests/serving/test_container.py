"""Command, environment and probes of the pod, as in `manifests/`, run the packaged Bento and leave it unchanged."""

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pyarrow.parquet as pq

from serving.deployment import Deployment
from serving.process import environment
from tests.manifests.kinds import base
from tests.serving.live import ASKED
from uniscale.artifacts import content_hash

KEY = "a key of the tests"


def pod():
    (deployment,) = [one for one in base() if one["kind"] == "Deployment"]
    return deployment["spec"]["template"]["spec"]


@contextmanager
def container(bento: Path, folder: Path, port: int):
    """The Bento's entrypoint with what the manifest gives it; mounts are folders below `folder`."""
    (one,) = pod()["containers"]

    def inside(text: str) -> str:
        for mount in one["volumeMounts"]:
            if Path(text).is_relative_to(mount["mountPath"]):
                return str(folder / mount["name"] / Path(text).relative_to(mount["mountPath"]))
        return text

    for mount in one["volumeMounts"]:
        (folder / mount["name"]).mkdir(parents=True)
    given = {entry["name"]: inside(entry["value"]) for entry in one["env"]}
    Path(given["UNISCALE_API_KEY_FILE"]).write_text(f"{KEY}\n")
    args = [str(port) if arg == str(one["ports"][0]["containerPort"]) else arg for arg in one["args"]]
    image = {"PATH": environment(folder)["PATH"], "BENTO_PATH": str(bento), "BENTOML_CONTAINERIZED": "true"}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["bash", str(bento / "env" / "docker" / "entrypoint.sh"), *args],
            cwd=bento,
            env={**image, "TMPDIR": given["HOME"], **given},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield one, given, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_pod_runs_the_bento_and_writes_to_its_volumes_only(packaged, tmp_path):
    tag = Deployment.load(packaged[1] / "deployment").tag
    bento = packaged[1] / "deployment" / "bentoml" / "bentos" / Path(*tag.split(":"))
    before = content_hash(bento)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        container(bento, tmp_path, port) as (one, given, process),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        startup = one["startupProbe"]
        deadline = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        while not answers(http, startup) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert answers(http, one[probe]), (tmp_path / "output").read_text()[-2000:]
        body = {"user_id": "u3", "item_ids": ["i1", "i2"], "ts": ASKED.isoformat()}
        bearer = {"Authorization": f"Bearer {KEY}"}
        assert http.post("/rank", json=body).status_code == http.get("/metrics").status_code == 401
        assert http.post("/rank", json=body, headers=bearer).status_code == 200
        assert 'uniscale_stage_seconds_count{stage="total"} 1.0' in http.get("/metrics", headers=bearer).text
        process.send_signal(signal.SIGTERM)
        assert process.wait(pod()["terminationGracePeriodSeconds"]) in (0, -signal.SIGTERM)
    (written,) = Path(given["UNISCALE_SERVING_LOG"]).glob("day=*/*.parquet")
    assert pq.ParquetFile(written).metadata.num_rows == 1
    assert content_hash(bento) == before


def answers(http: httpx.Client, probe) -> bool:
    with suppress(httpx.TransportError):
        return http.get(probe["httpGet"]["path"]).status_code == 200
    return False
