"""A run on Kubeflow Pipelines seen to its end: states and steps as they change, where the logs are, how it ended."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from pipelines.connection import Unreachable, asking
from uniscale.errors import UniscaleError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
# Exit codes, the same as on this machine where they mean the same; documented in docs/kubeflow.md.
PROMOTED, FAILED, REJECTED, CANCELED, STILL_RUNNING = 0, 1, 3, 4, 5


@dataclass(frozen=True)
class End:
    """How a run ended, or that it has not."""

    exit_code: int
    message: str


def run_page(host: str, run_id: str) -> str:
    """The run's page in Kubeflow's own pages."""
    return f"{host.rstrip('/')}/#/runs/details/{run_id}"


def follow(
    client: Any,
    host: str,
    run_id: str,
    timeout_seconds: float,
    show: Callable[[str], None],
    poll_seconds: float = 5.0,
    patience_seconds: float = 60.0,
) -> End:
    """Tell every change of a run and of its steps until it has ended.

    `wait_for_run_completion` of the client neither raises on FAILED nor ends on CANCELED, hence the loop here.

    Args:
        timeout_seconds: how long to follow; the run goes on after that.
        poll_seconds: between two looks.
        patience_seconds: how long the API may be away.

    Raises:
        UniscaleError: no such run, refused, or the API was away for too long.
    """
    deadline, last_seen = time.monotonic() + timeout_seconds, time.monotonic()
    told: dict[str, str] = {}
    state = "unknown"
    while True:
        try:
            with asking(host):
                run = client.get_run(run_id)
        except Unreachable as error:
            if time.monotonic() - last_seen > patience_seconds:
                raise UniscaleError(
                    f"{error} for {patience_seconds:g} s; the run goes on: follow it again with --run-id {run_id}"
                ) from None
        else:
            last_seen, state = time.monotonic(), str(run.state)
            tasks = (run.run_details and run.run_details.task_details) or []
            if told.get("") != state:
                told[""] = state
                show(f"run {run_id}: {state}")
            _tell(tasks, told, host, run_id, show)
            if state in ENDED:
                return _end(run, tasks, run_id)
        if time.monotonic() >= deadline:
            return End(
                STILL_RUNNING,
                f"run {run_id} is still {state} after {timeout_seconds:.0f} s; follow it again with --run-id {run_id}",
            )
        time.sleep(poll_seconds)


def _tell(tasks: Iterable[Any], told: dict[str, str], host: str, run_id: str, show: Callable[[str], None]) -> None:
    """Say what is new about the steps; a failed one with its error and its log."""
    for task in tasks:
        state = str(task.state)
        if task.display_name.startswith("condition-") or told.get(task.task_id) == state:
            continue
        told[task.task_id] = state
        took = f" in {(task.end_time - task.start_time).total_seconds():.0f} s" if task.end_time else ""
        show(f"  {task.display_name}: {state}{took if state in ENDED else ''}")
        if state == "FAILED":
            if task.error is not None:
                show(f"    {task.error.message}")
            for pod in filter(None, [task.pod_name, *(child.pod_name for child in task.child_tasks or [])]):
                asked = urlencode({"podname": pod, "runid": run_id})
                show(f"    log: {host.rstrip('/')}/k8s/pod/logs?{asked}")


def _end(run: Any, tasks: Iterable[Any], run_id: str) -> End:
    tasks = list(tasks)
    if run.state == "SUCCEEDED":
        succeeded = {task.display_name for task in tasks if str(task.state) == "SUCCEEDED"}
        if "reject" in succeeded:
            return End(REJECTED, f"run {run_id} completed: the candidate was rejected, the champion stays")
        what = "the candidate is the champion now" if "promote" in succeeded else "every step succeeded"
        return End(PROMOTED, f"run {run_id} completed: {what}")
    reasons = [task.error.message for task in tasks if str(task.state) == "FAILED" and task.error is not None]
    message = (run.error and run.error.message) or "; ".join(reasons) or "see the log of the step that failed"
    code = CANCELED if run.state == "CANCELED" else FAILED
    return End(code, f"run {run_id} ended {run.state}" + ("" if code == CANCELED else f": {message}"))


def cancel(client: Any, host: str, run_id: str) -> None:
    """Ask Kubeflow to end a run; its exit handler still runs."""
    with asking(host):
        client.terminate_run(run_id)


def retry(client: Any, host: str, run_id: str) -> None:
    """Start the steps of a failed run again that did not succeed."""
    with asking(host):
        client.runs.run_service_retry_run(run_id)
