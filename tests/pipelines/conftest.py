"""Compiled pipelines, each made once: a compilation takes seconds on a busy machine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.catalogue import compile_to
from uniscale.config import load_config
from uniscale.profile import load_profile

Compiled = Callable[..., Path]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """`compiled(pipeline, profile)`: the IR of the embedded configuration, not to be changed."""
    made: dict[tuple[str, str | None], Path] = {}
    folder = tmp_path_factory.mktemp("compiled")

    def of(pipeline: str = "training", profile: str | None = None) -> Path:
        if (pipeline, profile) not in made:
            out = made[pipeline, profile] = folder / f"{pipeline}-{profile}.yaml"
            compile_to(load_config(), out, load_profile(profile) if profile else None, pipeline)
        return made[pipeline, profile]

    return of
