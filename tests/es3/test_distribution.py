"""The same rows from threads, a local cluster, two workers of a master, one killed, Connect, and spark-submit."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark
import pytest

from benchmarks.es3 import digest, read_rows
from features.es3.session import java_home
from tests.es3.conftest import SETTINGS
from uniscale.java import find_java

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.xdist_group("clusters")]
SPARK = Path(pyspark.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
SMALL = "{spark.executor.memory: 800m, spark.executor.cores: '1'}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of every process: Java, started as for a short job, loopback addresses, and this source for Python's workers."""
    home = java_home(find_java(os.environ), tmp_path_factory.mktemp("java") / "home")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "JAVA_HOME": str(home),
        "JAVA_TOOL_OPTIONS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "SPARK_HOME": str(SPARK),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": paths,
    }


def started(market, environment, out, master):
    """The job as a process of its own."""
    settings = [f"spark.master={master}", f"spark.settings={SMALL}", "spark.driver_memory=1g", *SETTINGS]
    command = [sys.executable, "-m", "features.es3"]
    command += [f"--{name}={market / name}" for name in ("logs", "features")]
    command += [f"--out={out}", *(part for setting in settings for part in ("--set", setting))]
    return subprocess.Popen(command, env=environment, cwd=market, stderr=subprocess.PIPE, text=True)


def rows_of(process, out):
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors[-4000:]
    return digest(read_rows(out))


@pytest.fixture(scope="module")
def expected(market, manifest):
    return digest(read_rows(market / "samples"))


@contextmanager
def serving(command, environment, port):
    """A server in a process group of its own, once its port answers (a worker has none to wait for)."""
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while port:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def cluster(environment, tmp_path):
    """URL of a standalone master on loopback, and its two workers of one core."""
    port, launch = free_port(), [str(SPARK / "bin" / "spark-class")]
    master = [*launch, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port)]
    url = f"spark://127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(serving([*master, "--webui-port", "0"], environment, port))
        workers = []
        for number in range(2):
            place = tmp_path / f"worker{number}"
            sizes = ["--cores", "1", "--memory", "900m", "--work-dir", str(place), "--webui-port", "0"]
            worker = [*launch, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", *sizes, url]
            local = {**environment, "SPARK_LOCAL_DIRS": str(place / "local")}
            workers.append(stack.enter_context(serving(worker, local, 0)))
        yield url, workers


def test_a_local_cluster_gives_the_rows_of_threads(market, environment, expected, tmp_path):
    job = started(market, environment, tmp_path / "samples", "local-cluster[2,1,900]")
    assert rows_of(job, tmp_path / "samples") == expected


def test_two_workers_of_a_master_give_the_rows_of_threads(market, environment, expected, cluster, tmp_path):
    assert rows_of(started(market, environment, tmp_path / "samples", cluster[0]), tmp_path / "samples") == expected


def test_a_worker_killed_midway_changes_no_row(market, environment, expected, cluster, tmp_path):
    url, workers = cluster
    job = started(market, environment, tmp_path / "samples", url)
    while job.poll() is None and not list(tmp_path.glob(".scratch-es3-*/landings/_SUCCESS")):
        time.sleep(0.2)
    assert job.poll() is None, "the job ended before a worker could be killed"
    executors = subprocess.run(["ps", "-o", "pid=", "-g", str(workers[0].pid)], capture_output=True, text=True)
    assert len(executors.stdout.split()) > 1, "the worker has no executor"
    os.killpg(workers[0].pid, signal.SIGKILL)
    assert rows_of(job, tmp_path / "samples") == expected


def test_spark_connect_gives_the_rows_of_threads(market, environment, expected, tmp_path):
    port = free_port()
    server = [str(SPARK / "bin" / "spark-submit"), "--master", "local[2]", "--driver-memory", "1g"]
    server += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    server += ["--conf", f"spark.connect.grpc.binding.port={port}", "spark-internal"]
    with serving(server, environment, port):
        job = started(market, environment, tmp_path / "samples", f"sc://127.0.0.1:{port}")
        assert rows_of(job, tmp_path / "samples") == expected


def test_spark_submit_gives_the_rows_of_threads(market, environment, expected, tmp_path):
    out, program = tmp_path / "samples", ROOT / "features" / "es3" / "__main__.py"
    command = [str(SPARK / "bin" / "spark-submit"), "--master", "local[2]", "--driver-memory", "1g", str(program)]
    command += [f"--{name}={market / name}" for name in ("logs", "features")] + [f"--out={out}"]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    subprocess.run(command, env=environment, cwd=market, check=True, capture_output=True, timeout=1800)
    assert digest(read_rows(out)) == expected
