"""Features joined by Feast's Spark offline store, in the job's own session, are those that its DuckDB store joins."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.es3 import digest, read_rows
from features.build import build_features
from features.es3.build import build_samples
from features.store.repository import apply
from features.store.retrieval import item_day_features, query_day_features, request_features
from simulation.marketplace import write_logs
from tests.es3.test_build import CONFIG
from uniscale.logs import TIMESTAMP

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.xdist_group("spark")]
TABLES = {
    "user_behaviours": ("user_id", request_features),
    "query_statistics": ("query", query_day_features),
    "item_statistics": ("item_id", item_day_features),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Logs, features whose offline store is DuckDB, and the same with Spark."""
    folder = tmp_path_factory.mktemp("stores")
    write_logs(CONFIG.simulation, CONFIG.seed, folder / "logs")
    build_features(CONFIG, folder / "logs", folder / "duckdb")
    shutil.copytree(folder / "duckdb", folder / "spark")
    config = CONFIG.features.model_copy(update={"offline_store": "spark"})
    apply(folder / "spark", folder / "spark" / "tables", config)
    return folder


@pytest.mark.parametrize("table", TABLES)
def test_historical_features_are_equal(root, spark, table):
    key, retrieve = TABLES[table]
    rng, stamps = np.random.default_rng(0), pq.read_table(root / "duckdb" / "tables" / f"{table}.parquet")
    chosen = stamps.take(pa.array(rng.integers(0, len(stamps), 3000)))
    shift = pa.array(rng.choice([-1, 0, 1, 3600 * 10**6, 30 * 3600 * 10**6], 3000), pa.int64())
    moved = pa.array(chosen["ts"].cast(pa.int64()).to_numpy() + shift.to_numpy()).cast(TIMESTAMP)
    keys = [*chosen[key].to_pylist()[:-1], "nobody"]
    rows = pa.table({"row_id": rng.permutation(3000), key: keys, "ts": moved})
    expected = retrieve(root / "duckdb", rows)
    assert retrieve(root / "spark", rows).equals(expected) and len(expected) == 3000


def test_samples_are_equal(root, spark):
    for name in ("duckdb", "spark"):
        build_samples(CONFIG, root / "logs", root / name, root / f"{name}-samples", spark)
    assert digest(read_rows(root / "spark-samples")) == digest(read_rows(root / "duckdb-samples"))
