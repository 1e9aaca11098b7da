"""The way of a drift result out of its folder: into the history, and its gauges to where Prometheus looks for them.

A node exporter's textfile collector reads `*.prom` below one folder, and must never see half a file; where steps have
no node of their own (Kubernetes), a Pushgateway takes the same text.
"""

import os
from pathlib import Path

import httpx

from monitoring.drift_history import keep
from uniscale.artifacts import read_json
from uniscale.errors import DataError, ServingError

JOB = "uniscale_drift"
TIMEOUT_SECONDS = 10.0


def publish(measured: Path, kept: Path, textfiles: Path | None = None, gateway: str | None = None) -> Path:
    """Keep a drift result and publish its gauges; gives the history's page.

    Args:
        measured: what `monitoring.drift.drift` wrote.
        kept: the history (`drift_history`).
        textfiles: folder of the textfile collector; gets `uniscale_drift.prom`, whole.
        gateway: URL of a Pushgateway; the gauges replace those of the job `uniscale_drift`.

    Raises:
        DataError: no drift result in the folder.
        ServingError: the gateway did not take the gauges.
    """
    measured = Path(measured)
    if not (measured / "drift.prom").exists():
        raise DataError(f"no drift.prom in {measured}: give the folder that the drift step wrote")
    page = keep(read_json(measured / "drift.json"), kept)
    text = (measured / "drift.prom").read_text()
    if textfiles is not None:
        Path(textfiles).mkdir(parents=True, exist_ok=True)
        hidden = Path(textfiles) / f".{JOB}.{os.getpid()}"  # the collector reads *.prom only
        hidden.write_text(text)
        hidden.replace(Path(textfiles) / f"{JOB}.prom")
    if gateway is not None:
        push(text, gateway)
    return page


def push(text: str, gateway: str) -> None:
    """Replace the job's gauges in a Pushgateway."""
    url = f"{gateway.rstrip('/')}/metrics/job/{JOB}"
    headers = {"Content-Type": "text/plain; version=0.0.4"}
    try:
        answer = httpx.put(url, content=text, headers=headers, timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise ServingError(f"{url}: {type(error).__name__} {error}; is the Pushgateway up?") from None
    if not answer.is_success:
        raise ServingError(f"{url} answered {answer.status_code}: {answer.text[:300]}")
