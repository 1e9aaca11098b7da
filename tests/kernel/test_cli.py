"""The command line: quick to start, and every mistake ends with one clear message."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "pyspark", "feast", "kfp", "bentoml", "evidently", "mlflow", "sklearn", "pandas", "duckdb")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "uniscale.cli", *arguments], capture_output=True, text=True)


def test_starting_it_imports_nothing_heavy() -> None:
    probe = f"import sys, uniscale.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--set", "train.epoch=1"), "did you mean epochs?"),
        (("run", "--data", "moon"), "data.source = 'moon' is unknown"),
        (("run", "--model", "hhsf"), "model.name = 'hhsf' is unknown; did you mean hhsft?"),
        (("run", "--data", "expedia"), "give the path with --input"),
        (("run", "--data", "logs", "--input", "/no/such/folder"), "does not exist"),
        (("run", "--config", "/no/such/file.yaml"), "no config file"),
        (("show", "--runs", "/no/such/folder"), "no completed run"),
        (("load",), "either --url"),
        (("load", "--url", "http://127.0.0.1:9"), "does not answer"),
        (("serve", "--deployment", "/no/such/folder"), "no deployment.json"),
        (("submit", "--host", "http://127.0.0.1:9"), "cannot reach Kubeflow Pipelines"),
        (("ingest", "--logs", "/no/such/folder", "--out", "/tmp/never"), "description.json"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_1(arguments, said, tmp_path) -> None:
    extra = ("--runs", str(tmp_path)) if arguments[0] == "run" else ()
    done = run(*arguments, *extra)
    text = " ".join(done.stderr.split())
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in text and "Traceback" not in done.stderr


def test_help_names_every_step() -> None:
    text = run("--help").stdout
    for verb in ("run", "doctor", "compile", "submit", "samples", "train", "gate", "experiment", "data"):
        assert verb in text
