"""A run that dies takes its steps with it; a run that ends leaves other processes alone."""

import os
import signal
import subprocess
import sys
import time

PARENT = """
import subprocess, sys, time
from pipelines.orphans import guarded
with guarded(sys.argv[1]):
    child = subprocess.Popen(["sleep", "600"])
    print(child.pid, flush=True)
    time.sleep(600 if sys.argv[2] == "hang" else 0)
    if sys.argv[2] != "hang":
        child.terminate()
"""


def ended(pid: int, within_seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return True
        time.sleep(0.05)
    return False


def start(run_id: str, how: str) -> tuple[subprocess.Popen, int]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, run_id, how], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def test_kill_9_of_the_run_ends_its_step_and_nobody_elses() -> None:
    parent, child = start(f"killed-{os.getpid()}", "hang")
    other, spared = start(f"spared-{os.getpid()}", "hang")
    try:
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
        assert ended(child)
        os.kill(spared, 0)
    finally:
        other.kill()
        other.communicate()
        assert ended(spared)
