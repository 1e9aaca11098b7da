"""The image of every component, tagged with the hash of the source: caches key on it, so changed code runs anew."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from uniscale.artifacts import source_hash

IMAGE = f"uniscale/python:{source_hash()}"


def step(function: Callable[..., Any]) -> Any:
    """A lightweight component in our image: nothing is installed when its container starts."""
    return dsl.component(function, base_image=IMAGE, install_kfp_package=False)
