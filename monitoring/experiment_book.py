"""The book of experiments: one folder each with its definition and a numbered log of what was done, when and why.

The log is the state: weights, status and the start of the present weights follow from its entries. It is written
before the service is told, so a process killed between the two leaves a log that the verb `apply` carries out again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from monitoring.definition import Definition, definition_from
from uniscale.artifacts import read_json, write_json
from uniscale.config import nearest
from uniscale.errors import ConfigError, DataError
from uniscale.promotion_log import PromotionLog

Action = Literal["start", "ramp", "stop", "roll back"]
WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Step:
    """One entry of the log: the weights from then on."""

    number: int
    action: Action
    weights: dict[str, float]
    at: str  # ISO 8601, UTC
    why: str
    details: dict[str, Any] = field(default_factory=dict)


class ExperimentBook:
    """Experiments below one folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def names(self) -> list[str]:
        """Every experiment that was ever started."""
        return sorted(path.parent.name for path in self.folder.glob("*/definition.yaml"))

    def definition(self, name: str) -> Definition:
        """The definition that an experiment was started with.

        Raises:
            DataError: no such experiment.
        """
        path = self.folder / name / "definition.yaml"
        if not path.exists():
            raise DataError(f"no experiment {name!r} in {self.folder}{nearest(name, self.names())}")
        return definition_from(yaml.safe_load(path.read_text()), str(path))

    def steps(self, name: str) -> list[Step]:
        """The log of an experiment, oldest first."""
        return [Step(**read_json(file)) for file in sorted((self.folder / name / "log").glob("[0-9]*.json"))]

    def status(self, name: str) -> str:
        """`running`, `stopped`, or `rolled back`."""
        last = self.steps(name)[-1].action
        return {"stop": "stopped", "roll back": "rolled back"}.get(last, "running")

    def start(self, definition: Definition, at: datetime, why: str = "") -> Step:
        """Begin at the first share of the ramp, or at the planned weights where there is no ramp.

        Raises:
            ConfigError: an experiment of that name was started before, or one with the same salt is running.
        """
        with self._changing():
            if definition.name in self.names():
                raise ConfigError(
                    f"experiment {definition.name!r} was started before: give the new one a name of its own"
                )
            for other in self.names():
                if self.status(other) == "running" and self.definition(other).salt == definition.salt:
                    raise ConfigError(f"{other} is running with the salt {definition.salt!r}: stop it, or take another")
            folder = self.folder / definition.name
            folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(definition.model_dump(mode="json"), sort_keys=False)
            (folder / "definition.yaml").write_text(text)
            weights = shared(definition, definition.ramp[0]) if definition.ramp else dict(definition.weights)
            return self._append(definition.name, "start", weights, at, why)

    def ramp(self, name: str, at: datetime, why: str = "") -> Step:
        """Go to the next share of the ramp.

        Raises:
            ConfigError: it is not running, or it is at the last share.
        """
        with self._changing():
            definition, now = self._running(name)
            share = 1 - now.weights[definition.control]
            later = [step for step in definition.ramp if step > share + 1e-9]
            if not later:
                raise ConfigError(f"{name} is at {share:.0%}, the end of its ramp: wait for its end, or stop it")
            return self._append(name, "ramp", shared(definition, later[0]), at, why)

    def end(
        self, name: str, at: datetime, why: str, action: Action = "stop", details: Mapping[str, Any] | None = None
    ) -> Step:
        """Give all users back to the control.

        Raises:
            ConfigError: it is not running.
        """
        with self._changing():
            definition, _ = self._running(name)
            return self._append(name, action, shared(definition, 0.0), at, why, dict(details or {}))

    def present(self, name: str) -> tuple[dict[str, float], datetime]:
        """The last weights that served a treatment, and since when: a change moves users, so analyses begin there."""
        served = [step for step in self.steps(name) if step.action in ("start", "ramp")][-1]
        return served.weights, datetime.fromisoformat(served.at)

    def _running(self, name: str) -> tuple[Definition, Step]:
        definition = self.definition(name)
        if self.status(name) != "running":
            raise ConfigError(f"{name} is {self.status(name)}: start a new experiment instead")
        return definition, self.steps(name)[-1]

    def _append(
        self, name: str, action: Action, weights: dict[str, float], at: datetime, why: str, details: Any = None
    ) -> Step:
        number = len(self.steps(name)) + 1
        stamp = at.astimezone(UTC).isoformat(timespec="seconds")
        step = Step(number, action, weights, stamp, why or "no reason given", details or {})
        write_json(self.folder / name / "log" / f"{number:06d}.json", asdict(step))
        return step

    def _changing(self) -> Any:
        return PromotionLog(self.folder).lock(WAIT_SECONDS)


def shared(definition: Definition, share: float) -> dict[str, float]:
    """Weights with `share` of the users in the treatments, in the order of the definition.

    Under the cumulated weights of `uniscale.assignment` a treatment at the end of the order keeps its users when its
    share grows.
    """
    treated = 1 - definition.weights[definition.control]
    return {
        name: 1 - share if name == definition.control else share * weight / treated
        for name, weight in definition.weights.items()
    }
