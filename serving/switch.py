"""Changes models while requests are answered: load beside the old, check, swap one reference, keep the old.

A request reads `Switch.current` once and works with that line-up to its end, so it never sees half of a change. The
line-up before stays loaded: going back to it takes no loading. A routing that cannot be had (unreadable file, other
spec, corrupt or wrong weights) is refused, counted and shown; it is tried again when its file is written again.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.engine import Scorer
from serving.routing import Routing, Target
from uniscale.errors import ServingError
from uniscale.sections import Mode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lineup:
    """One consistent state: who sees which version, and every version's model."""

    routing: Routing
    models: Mapping[str, Scorer]  # by version


class Switch:
    """The line-up that answers now.

    Args:
        first: routing to start with; what it names must load.
        load: a warmed-up, checked model, or any exception.
        path: the routing file; None for a service that never changes.
        poll_seconds: between looks at the file.
        count: told "accepted" or "refused" of each change.
    """

    def __init__(
        self,
        first: Routing,
        load: Callable[[Target], Scorer],
        path: Path | None = None,
        poll_seconds: float = 1.0,
        count: Callable[[str], None] = lambda outcome: None,
    ):
        self._load, self._path, self._poll_seconds, self._count = load, path, poll_seconds, count
        self._seen: tuple[int, ...] | None = None
        self._stop, self._polling = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self.previous: Lineup | None = None
        self.refused: str | None = None  # why the last change was refused, None when it was not
        self.changed_at: datetime | None = None
        self.current = Lineup(first, {version: load(target) for version, target in first.targets.items()})

    def start(self) -> None:
        """Look at the file now, and from now on by a thread of its own."""
        if self._path is None:
            return
        self.poll()
        self._thread = threading.Thread(target=self._run, name="routing", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Follow the file if it was written since the last look; a missing file changes nothing."""
        with self._polling:
            self._follow()

    def share(self, weights: Mapping[str, float], mode: Mode | None = None) -> Routing:
        """Serve the variants by other shares of the users: written for every worker to follow, in force here at once.

        Args:
            weights: share of each variant.
            mode: split or interleave; as it is where None.

        Returns:
            The routing in force.

        Raises:
            ServingError: no routing file, other variants than those served, shares that do not sum to 1, or a refusal.
        """
        if self._path is None:
            raise ServingError("this service has no routing file, so its shares are fixed: start it with one")
        with self._polling:
            self._follow()  # models that the file has named since the last look stay
            routing = self.current.routing
            if weights.keys() != routing.variants.keys():
                raise ServingError(
                    f"weights are given for {sorted(weights)}, the variants are {sorted(routing.variants)}"
                )
            routing.shared(weights, mode).save(self._path)
            self._follow()
            if self.refused:
                raise ServingError(f"the new shares were refused: {self.refused}")
            return self.current.routing

    def _follow(self) -> None:
        assert self._path is not None
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return
        except OSError as error:  # a thread that died of it would never look again
            self.refused = f"{type(error).__name__}: {error}"
            return
        signature = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            lineup = self._prepared(Routing.load(self._path))
        except Exception as error:  # whatever a broken folder raises, the line-up that answers stays
            self.refused = f"{type(error).__name__}: {error}"
            self._count("refused")
            logger.error("routing %s refused, the old one stays: %s", self._path, self.refused)
            return
        self.previous, self.current = self.current, lineup
        self.refused, self.changed_at = None, datetime.now(UTC)
        self._count("accepted")

    def state(self) -> dict[str, Any]:
        """For the health page."""
        routing = self.current.routing
        return {
            "versions": routing.versions,
            "weights": routing.weights,
            "mode": routing.mode,
            "shadows": {name: target.version for name, target in routing.shadows.items()},
            "routing": {
                "changed_at": self.changed_at.isoformat() if self.changed_at else None,
                "refused": self.refused,
                "previous": self.previous.routing.versions if self.previous else None,
            },
        }

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _prepared(self, routing: Routing) -> Lineup:
        """Every model of a routing; what is loaded already, now or before the last change, is taken as it is.

        A new model meets the shapes of the requests that those in force have answered before it answers any; for one
        that is loaded already nothing stands in the way of a rollback.
        """
        loaded = {
            target: lineup.models[version]
            for lineup in (self.previous, self.current)
            if lineup is not None
            for version, target in lineup.routing.targets.items()
        }
        asked = {shape for model in self.current.models.values() for shape in tuple(model.shapes)}
        models = {}
        for version, target in routing.targets.items():
            if target not in loaded:
                loaded[target] = self._load(target)
                loaded[target].meet(asked)
            models[version] = loaded[target]
        return Lineup(routing, models)

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.poll()
