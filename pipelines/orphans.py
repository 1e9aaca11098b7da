"""Ends what a killed run leaves behind: steps, their JVMs and services, found by a mark in their environment."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

MARK = "UNISCALE_RUN"


@contextlib.contextmanager
def guarded(run_id: str) -> Iterator[None]:
    """Mark every process started in the block; should this one die in it, even by SIGKILL, a watchdog ends them.

    The watchdog waits for the end of its standard input, which only this process holds open.
    """
    before = os.environ.get(MARK)
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "pipelines.orphans", run_id], stdin=subprocess.PIPE, start_new_session=True
    )
    os.environ[MARK] = run_id
    try:
        yield
    finally:
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before
        watchdog.terminate()
        watchdog.communicate()


def end_marked(run_id: str, patience_seconds: float = 5.0) -> int:
    """Terminate, then kill, every process whose environment carries the mark of a run; gives their number."""
    import psutil

    marked = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == run_id:
                process.terminate()
                marked.append(process)
    _, alive = psutil.wait_procs(marked, timeout=patience_seconds)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return len(marked)


if __name__ == "__main__":
    sys.stdin.read()
    end_marked(sys.argv[1])
