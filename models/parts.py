"""Look-up of a named part of a model: an encoder, a backbone, a head, a whole model."""

from collections.abc import Mapping
from typing import TypeVar

from uniscale.config import nearest
from uniscale.errors import ModelError

Part = TypeVar("Part")


def look_up(registry: Mapping[str, Part], what: str, name: str) -> Part:
    """The part of that name; `what` opens the message, "model.head =" for a head that a configuration names.

    Raises:
        ModelError: no such part; the message has the nearest name.
    """
    if name not in registry:
        raise ModelError(f"{what} {name!r} is unknown{nearest(name, sorted(registry))}")
    return registry[name]
