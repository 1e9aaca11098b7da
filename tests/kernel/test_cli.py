"""The command line: quick to start, and every mistake ends with one clear message."""

import subprocess
import sys

import pytest

from uniscale.cli import main

HEAVY = ("torch", "pyspark", "feast", "kfp", "bentoml", "evidently", "mlflow", "sklearn", "pandas", "duckdb")

MISSING = ("--samples", "/no/rows", "--candidate", "/no/a", "--champion", "/no/b", "--logs", "/no/logs")


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*arguments)`: exit code, stdout and stderr of the entry point, called in this process."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["uniscale", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


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
        (("run", "--data", "logs", "--input", "/no/[/such]/[red]"), "'/no/[/such]/[red]' does not exist"),
        (("run", "--config", "/no/such/file.yaml"), "no config file"),
        (("show", "--runs", "/no/such/folder"), "no completed run"),
        (("load",), "either --url"),
        (("load", "--url", "http://127.0.0.1:9"), "does not answer"),
        (("serve", "--deployment", "/no/such/folder"), "no deployment.json"),
        (("submit", "--host", "http://127.0.0.1:9"), "cannot reach Kubeflow Pipelines"),
        (
            ("cost", "--samples", "/no/c", "--candidate", "/no/a", "--champion", "/no/b", "--out", "/tmp/x"),
            "no file /no/a",
        ),
        (("evaluate", *MISSING, "--out", "/tmp/x"), "/no/a: No such file or directory; give a path that is there"),
        (("ingest", "--logs", "/no/such/folder", "--out", "/tmp/never"), "description.json"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_1(arguments, said, tmp_path, run) -> None:
    extra = ("--runs", str(tmp_path)) if arguments[0] == "run" else ()
    code, out, err = run(*arguments, *extra)
    assert code == 1, out + err
    assert said in " ".join(err.split()) and "Traceback" not in err


def test_a_process_ends_with_that_message_and_code() -> None:
    done = subprocess.run([sys.executable, "-m", "uniscale.cli", "load"], capture_output=True, text=True)
    assert done.returncode == 1 and "either --url" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_help_names_every_step(run) -> None:
    _, text, _ = run("--help")
    for verb in ("run", "doctor", "compile", "submit", "samples", "train", "gate", "experiment", "data"):
        assert verb in text
