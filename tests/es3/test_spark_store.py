"""Features joined by Feast's Spark offline store, in the job's own session, are those that its DuckDB store joins."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.es3 import digest, read_rows
from features.es3.build import build_samples
from features.store.repository import apply
from features.store.retrieval import item_day_features, query_day_features, request_features
from tests.es3.conftest import CONFIG, MIDNIGHT
from uniscale.logs import TIMESTAMP

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.xdist_group("spark")]
TABLES = {
    "user_behaviours": ("user_id", request_features),
    "query_statistics": ("query", query_day_features),
    "item_statistics": ("item_id", item_day_features),
}


@pytest.fixture(scope="module")
def features(market, tmp_path_factory):
    """The market's features, whose offline store is Spark in place of DuckDB."""
    folder = tmp_path_factory.mktemp("spark") / "features"
    shutil.copytree(market / "features", folder)
    on_spark = CONFIG.features.model_copy(update={"offline_store": "spark"})
    apply(folder, folder / "tables", on_spark, MIDNIGHT, MIDNIGHT)
    return folder


@pytest.mark.parametrize("table", TABLES)
def test_historical_features_are_equal(market, features, spark, table):
    key, retrieve = TABLES[table]
    rng, stamps = np.random.default_rng(0), pq.read_table(market / "features" / "tables" / f"{table}.parquet")
    chosen = stamps.take(pa.array(rng.integers(0, len(stamps), 3000)))
    shift = pa.array(rng.choice([-1, 0, 1, 3600 * 10**6, 30 * 3600 * 10**6], 3000), pa.int64())
    moved = pa.array(chosen["ts"].cast(pa.int64()).to_numpy() + shift.to_numpy()).cast(TIMESTAMP)
    keys = [*chosen[key].to_pylist()[:-1], "nobody"]
    rows = pa.table({"row_id": rng.permutation(3000), key: keys, "ts": moved})
    expected = retrieve(market / "features", rows)
    assert retrieve(features, rows).equals(expected) and len(expected) == 3000


def test_samples_are_equal(market, manifest, features, spark, tmp_path):
    build_samples(CONFIG, market / "logs", features, tmp_path / "samples", spark)
    assert digest(read_rows(tmp_path / "samples")) == digest(read_rows(market / "samples"))
