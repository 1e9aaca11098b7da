"""Decision becomes action: weights go to the service, and a breached guardrail takes the treatment out of service.

Order of a roll-back: the book first (so that a killed process can be carried on), then the service (harm ends), then
the registry, then the post-mortem record, which says what each of them answered.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import httpx

from monitoring.definition import Definition
from monitoring.experiment_book import ExperimentBook
from uniscale.artifacts import write_json
from uniscale.errors import ServingError
from uniscale.registry import Registry
from uniscale.sections import Mode


class Traffic(Protocol):
    """Who decides which variant a user is served."""

    def set_weights(self, salt: str | None, weights: Mapping[str, float], mode: Mode) -> None:
        """Serve by these weights and this mode from now on; raises ServingError when that is not certain."""


class HttpTraffic:
    """A service that takes `PUT {url}/experiment` with {"salt", "weights", "mode"} and answers what is in force."""

    def __init__(self, url: str, token: str | None = None, timeout_seconds: float = 10.0):
        self.url, self.timeout_seconds = url.rstrip("/"), timeout_seconds
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def set_weights(self, salt: str | None, weights: Mapping[str, float], mode: Mode) -> None:
        """Put weights and mode and make sure that the service says it serves by them."""
        body = {"salt": salt, "weights": dict(weights), "mode": mode}
        try:
            answer = httpx.put(f"{self.url}/experiment", json=body, headers=self.headers, timeout=self.timeout_seconds)
            said = answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError) as error:
            raise ServingError(f"{self.url}/experiment: {type(error).__name__} {error}; is the service up?") from None
        if not isinstance(said, dict) or any(said.get(key) != body[key] for key in ("weights", "mode")):
            raise ServingError(f"{self.url}/experiment answered {answer.status_code}: {answer.text[:300]}")


def tell(traffic: Traffic, definition: Definition, weights: Mapping[str, float]) -> None:
    """Serve an experiment by these weights; one that a variant has left is split, so that nothing drafts after it."""
    traffic.set_weights(definition.salt, weights, definition.mode if min(weights.values()) > 0 else "split")


def act_on(
    book: ExperimentBook,
    name: str,
    result: Mapping[str, Any],
    traffic: Traffic,
    registry: Registry | None,
    at: datetime,
) -> Path | None:
    """Roll a running experiment back where its analysis says so; gives the post-mortem, None where nothing was done.

    Args:
        book: where the experiment is kept.
        name: the experiment.
        result: what `monitoring.experiment` found in its logs.
        traffic: the service.
        registry: where the treatment's model may be champion; its predecessor gets the seat back. None leaves it.
        at: when this is done.

    Raises:
        ServingError: the service did not confirm; the record is written and says so, and calling again tries again.
    """
    if result["verdict"] != "roll back":
        return None
    definition = book.definition(name)
    if book.status(name) == "running":
        details = {key: result[key] for key in ("headline", "reason", "guardrails")}
        book.end(name, at, result["reason"], "roll back", details)
    elif book.status(name) == "stopped":
        return None
    step, path = book.steps(name)[-1], book.folder / name / "post_mortem.json"
    record: dict[str, Any] = {
        "experiment": name,
        "owner": definition.owner,
        "hypothesis": definition.hypothesis,
        "began": book.steps(name)[0].at,
        "rolled_back": step.at,
        "headline": result["headline"],
        "reason": result["reason"],
        "guardrails": [item for item in result["guardrails"] if item["status"] == "breach"],
        "exposed": {role: variant["users"] for role, variant in result["variants"].items()},
        "service": "control serves everyone",
        "registry": "not asked",
    }
    failed: ServingError | None = None
    try:
        tell(traffic, definition, step.weights)
    except ServingError as error:
        failed, record["service"] = error, f"FAILED, the treatment may still serve: {error}"
    if registry is not None:
        record["registry"] = _unseat(registry, result["variants"]["treatment"]["versions"], result["reason"])
    write_json(path, record)
    if failed is not None:
        raise failed
    return path


def _unseat(registry: Registry, versions: list[str], why: str) -> str:
    """Give the seat back where a treatment version holds it."""
    champion = registry.champion()
    if champion is None or champion.number not in versions:
        return f"unchanged: champion {champion.number if champion else 'none'} is no version of the treatment"
    return f"champion {champion.number} gave way to {registry.rollback(reason=why, by='experiment guardrail').number}"
