"""Follows the registry: when another version takes the champion's seat, it is exported and the routing points at it.

Reading the registry takes its log of promotions and no MLflow. Exports lie side by side in one folder, so a rollback
in the registry is a pointer back to one that is there, and still loaded in every worker.
"""

import logging
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from serving.deployment import Deployment
from serving.export import export
from serving.routing import Routing, Target
from uniscale.artifacts import atomic_folder
from uniscale.errors import UniscaleError
from uniscale.registry import Registry

logger = logging.getLogger(__name__)


def point_at_champion(
    registry: Registry, deployment: Deployment, routing: Path, exports: Path, variant: str
) -> str | None:
    """Let a variant follow the champion's seat, once.

    Args:
        registry: read only.
        deployment: gives the routing where there is no file yet.
        routing: the routing file.
        exports: folder of exported versions, `<registry name>-<number>`.
        variant: the one that follows.

    Returns:
        The version now pointed at, None where nothing changed.

    Raises:
        RegistryError: the registry's files have changed.
        ServingError: no such variant, or the version cannot be exported.
    """
    champion = registry.champion()
    if champion is None:
        return None
    old = Routing.load(routing) if Path(routing).exists() else Routing.of(deployment)
    known = old.variants.get(variant)
    if known is not None and known.target.version == champion.number:
        return None
    folder = Path(exports).resolve() / f"{registry.name}-{champion.number}"
    if not folder.exists():
        with TemporaryDirectory() as scratch, atomic_folder(folder) as target:
            export(registry.fetch(champion.number, Path(scratch) / "model"), target / "model")
    same = [target for target in old.targets.values() if target.version == champion.number]
    old.pointed(variant, same[0] if same else Target.of(champion.number, folder / "model")).save(routing)
    return champion.number


def follow(
    registry: Registry,
    deployment: Deployment,
    routing: Path,
    exports: Path,
    variant: str,
    stop: threading.Event,
    interval_seconds: float,
) -> None:
    """`point_at_champion` every `interval_seconds` until `stop` is set; what fails is logged once and tried again."""
    told = ""
    while not stop.is_set():
        try:
            if number := point_at_champion(registry, deployment, routing, exports, variant):
                logger.info("variant %s follows the champion to version %s", variant, number)
            told = ""
        except (UniscaleError, OSError) as error:
            if str(error) != told:
                logger.error("the champion cannot be followed: %s", error)
            told = str(error)
        stop.wait(interval_seconds)
