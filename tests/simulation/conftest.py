"""A small marketplace, simulated once for all tests of the folder."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from simulation.marketplace import write_logs
from simulation.world import World, build_world
from uniscale.config import Config, load_config

OVERRIDES = (
    *("simulation.users=400", "simulation.items=500", "simulation.days=14", "simulation.candidates=30"),
    *("simulation.exposed=6", "simulation.embedding_dim=8", "simulation.search_requests_per_user_day=0.4"),
    *("simulation.feed_requests_per_user_day=0.4", "simulation.ads_requests_per_user_day=0.2", "experiment.days=2"),
)


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(overrides=OVERRIDES)


@pytest.fixture(scope="session")
def world(config: Config) -> World:
    return build_world(config.simulation, config.seed)


@pytest.fixture(scope="session")
def counts(config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    folder = tmp_path_factory.mktemp("simulation") / "logs"
    return {"folder": folder, **write_logs(config.simulation, config.seed, folder)}


@pytest.fixture(scope="session")
def logs(counts: dict) -> Path:
    return counts["folder"]


def read(logs: Path, table: str) -> pa.Table:
    """A table of a log folder, with its `day` partition as a column where it has one."""
    path = logs / f"{table}.parquet"
    source = path if path.exists() else logs / table
    partitioning = None if path.exists() else ds.partitioning(pa.schema([("day", pa.string())]), flavor="hive")
    return ds.dataset(source, format="parquet", partitioning=partitioning).to_table()
