"""Logs and features built once a worker: most laws look at the same small folder."""

from pathlib import Path

import pytest

from tests.features.log_folder import random_logs
from uniscale.config import Config, load_config

SMALL = [
    "features.max_behaviours=6",
    "features.text_dim=8",
    "samples.warmup_days=1",
    "features.windows_days=[1, 7, 30]",
    "samples.valid_days=1",
    "samples.test_days=1",
    "samples.conversion_window_days=1",
]


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(overrides=SMALL)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_logs().write(tmp_path_factory.mktemp("logs") / "logs")


@pytest.fixture(scope="session")
def features(config: Config, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from features.build import build_features  # imports Feast, which takes seconds

    out = tmp_path_factory.mktemp("features") / "features"
    build_features(config, logs, out)
    return out
