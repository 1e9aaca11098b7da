"""The whole chain through the command line: killed in its training, resumed, finished, and summed up."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.training import STEPS

TINY = {
    "simulation.users": 200,
    "simulation.items": 400,
    "simulation.days": 22,
    "train.epochs": 2,
    "train.batch_samples": 1024,
    "model.hhsft.hfa_dim": 16,
    "samples.warmup_days": 7,
    "spark.shuffle_partitions": 2,
    "spark.settings": "{spark.sql.codegen.wholeStage: 'false'}",
    "experiment.days": 2,
    "serving.smoke_requests": 20,
    "serving.deadline_ms": 2000,
    "gate.bootstrap_resamples": 100,
}


def command(runs: Path) -> list[str]:
    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "uniscale.cli", "run", "--runs", str(runs), *settings]


def watch(runs: Path) -> dict:
    """Run the monitoring pipeline on what the newest run served to its users; gives its manifest."""
    (logs,) = runs.glob("artifacts/uniscale-training-*/ingest/clean")
    (answered,) = runs.glob("artifacts/uniscale-training-*/experiment*/result")
    given = {"serving_log": answered / "serving_log", "live_logs": answered / "logs", "history_logs": logs}
    given["now"] = "2026-03-01T00:00:00+00:00"  # weeks after the last day: its labels are mature
    parameters = [part for name, value in given.items() for part in ("--param", f"{name}={value}")]
    done = subprocess.run(
        [*command(runs), "--pipeline", "monitoring", *parameters],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return manifests(runs)[-1]


def manifests(runs: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(runs.glob("*/manifest.json"))]


@pytest.mark.slow
@pytest.mark.spark
def test_a_run_killed_in_training_resumes_and_ends_with_a_decision(tmp_path) -> None:
    runs = tmp_path / "runs"
    first = subprocess.Popen(command(runs), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert first.stdout is not None
    seen = []
    for line in first.stdout:
        seen.append(line)
        if line.strip() == "train":
            time.sleep(1.0)
            first.send_signal(signal.SIGKILL)
            break
    first.communicate()
    assert first.returncode == -signal.SIGKILL, "".join(seen)
    (cut_off,) = manifests(runs)
    assert cut_off["status"] == "running"

    second = subprocess.run(command(runs), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert second.returncode in (0, 3), second.stdout[-5000:]
    (manifest,) = manifests(runs)
    assert manifest["id"] == cut_off["id"] and manifest["status"] == "completed"

    status = {step["name"]: step["status"] for step in manifest["steps"]}
    assert list(status) == list(STEPS)
    assert {status[name] for name in ("logs", "ingest", "features", "samples")} == {"cached"}
    assert {status[name] for name in ("train", "evaluate", "gate", "package", "smoke", "experiment")} == {"done"}
    promoted = second.returncode == 0
    assert status["promote" if promoted else "reject"] == "done"
    assert status["reject" if promoted else "promote"] == "not taken"

    required = {"data", "model", "seed", "versions", "data_hash", "steps", "metrics", "gate", "reports"}
    assert required <= set(manifest)
    assert manifest["gate"]["decision"] == ("promote" if promoted else "reject")
    assert manifest["serving"]["passed"]
    assert [row["requests_x"] for row in manifest["table1"]][:3] == [1.0, 1.0, 1.0]
    assert manifest["experiment"]["mode"] == ("A/B" if promoted else "A/A")
    for name, page in manifest["reports"].items():
        assert Path(page).read_text().lstrip().lower().startswith("<!doctype html"), name

    shown = subprocess.run(
        [sys.executable, "-m", "uniscale.cli", "show", "--runs", str(runs)], capture_output=True, text=True, check=True
    )
    assert "Search-exposed test rows" in shown.stdout and "Online experiment" in shown.stdout

    watched = watch(runs)
    days = [f"2026-01-{day}" for day in (27, 28)]  # those of the experiment, after 22 days from the 5th
    assert watched["retraining"]["new_days"] == days
    assert {step["status"] for step in watched["steps"] if step["name"] != "start"} == {"done"}
