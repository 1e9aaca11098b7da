"""The training pipeline on Kubeflow Pipelines: compile, submit, follow."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.training import NAME, training_pipeline
from uniscale.config import Config
from uniscale.errors import UniscaleError

ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


def compile_to(config: Config, out: Path) -> None:
    """Write the IR YAML of the training pipeline, its parameters defaulting to `config`."""
    from kfp import compiler

    Path(out).parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(training_pipeline(config), str(out))


def submit_run(config: Config, host: str, token: str | None, experiment: str) -> tuple[Any, str]:
    """Submit a run and give the client and the run's id.

    Raises:
        UniscaleError: the API cannot be reached or refuses.
    """
    import kfp

    _check_reachable(host, token)
    client = kfp.Client(host=host, existing_token=token)
    made = client.create_run_from_pipeline_func(
        training_pipeline(config), arguments={}, experiment_name=experiment, run_name=NAME
    )
    return client, made.run_id


def follow(
    client: Any, run_id: str, timeout_seconds: float, show: Callable[[str], None], poll_seconds: float = 5.0
) -> None:
    """Wait for the end of a run, telling every change of state.

    `wait_for_run_completion` of the client neither raises on FAILED nor ends on CANCELED, hence the loop here.

    Raises:
        UniscaleError: the run did not succeed, or did not end in time.
    """
    deadline = time.monotonic() + timeout_seconds
    state = None
    while time.monotonic() < deadline:
        run = client.get_run(run_id)
        if run.state != state:
            state = run.state
            show(f"run {run_id}: {state}")
        if state in ENDED:
            if state == "SUCCEEDED":
                return
            message = getattr(run.error, "message", None) or "see the run's page for the step that failed"
            raise UniscaleError(f"run {run_id} ended {state}: {message}")
        time.sleep(poll_seconds)
    raise UniscaleError(f"run {run_id} is still {state} after {timeout_seconds:.0f} s: follow it on its page")


def _check_reachable(host: str, token: str | None) -> None:
    """Ask the API's health page once: the client itself would retry a refusal for half a minute."""
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{host.rstrip('/')}/apis/v2beta1/healthz", headers=headers, timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UniscaleError(
            f"cannot reach Kubeflow Pipelines at {host} ({error}): check the URL and the network"
        ) from None
    if answer.status_code != 200:
        raise UniscaleError(
            f"{host} refused the run: {answer.status_code} {answer.reason_phrase}: check the token and the URL"
        )
