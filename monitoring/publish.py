"""The way of drift and skew out of their folders: into the history, and as gauges to where Prometheus looks for them.

A node exporter's textfile collector reads `*.prom` below one folder, and must never see half a file; where steps have
no node of their own (Kubernetes), a Pushgateway takes the same text.
"""

import os
from pathlib import Path

import httpx

from monitoring.drift_history import keep
from monitoring.gauges import skew_gauges
from uniscale.artifacts import read_json
from uniscale.errors import DataError, ServingError

TIMEOUT_SECONDS = 10.0


def publish(
    measured: Path, kept: Path, textfiles: Path | None = None, gateway: str | None = None, skew: Path | None = None
) -> Path:
    """Keep a drift result and publish its gauges and those of a skew; gives the history's page.

    Args:
        measured: what `monitoring.drift.drift` wrote.
        kept: the history (`drift_history`).
        textfiles: folder of the textfile collector; gets `uniscale_drift.prom` and `uniscale_skew.prom`, each whole.
        gateway: URL of a Pushgateway; the gauges replace those of the jobs `uniscale_drift` and `uniscale_skew`.
        skew: folder with the skew.json of `monitoring.skew`; None leaves the gauges there are.

    Raises:
        DataError: no drift or skew result in its folder.
        ServingError: the gateway did not take the gauges.
    """
    measured = Path(measured)
    if not (measured / "drift.prom").exists():
        raise DataError(f"no drift.prom in {measured}: give the folder that the drift step wrote")
    texts = {"uniscale_drift": (measured / "drift.prom").read_text()}
    if skew is not None:
        texts["uniscale_skew"] = skew_gauges(read_json(Path(skew) / "skew.json"))
    page = keep(read_json(measured / "drift.json"), kept)
    for job, text in texts.items():
        if textfiles is not None:
            Path(textfiles).mkdir(parents=True, exist_ok=True)
            hidden = Path(textfiles) / f".{job}.{os.getpid()}"  # the collector reads *.prom only
            hidden.write_text(text)
            hidden.replace(Path(textfiles) / f"{job}.prom")
        if gateway is not None:
            push(job, text, gateway)
    return page


def push(job: str, text: str, gateway: str) -> None:
    """Replace a job's gauges in a Pushgateway."""
    url = f"{gateway.rstrip('/')}/metrics/job/{job}"
    headers = {"Content-Type": "text/plain; version=0.0.4"}
    try:
        answer = httpx.put(url, content=text, headers=headers, timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise ServingError(f"{url}: {type(error).__name__} {error}; is the Pushgateway up?") from None
    if not answer.is_success:
        raise ServingError(f"{url} answered {answer.status_code}: {answer.text[:300]}")
