"""Rows of id tables: the formula by hand and by simulation, and the report of a samples folder."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features.id_tables import id_tables, rows_for, shared
from uniscale.cli import app
from uniscale.samples import Feature, SampleSpec

SPEC = SampleSpec(
    features=(
        Feature("user_id_hash", "user", "id", "request", "user"),
        Feature("item_hash", "item", "id", "candidate", "item"),
        Feature("item_price", "item", "count", "candidate"),
        Feature("behaviour_item", "behaviour", "id", "behaviour", "item"),
    ),
    domains=("search",),
    scenarios=("keyword",),
    tasks=("click",),
    content_dim=0,
    text_dim=0,
    max_behaviours=4,
)


@pytest.fixture
def samples(tmp_path):
    SPEC.save(tmp_path)
    folder = tmp_path / "rows" / "day=2026-01-05" / "domain=search"
    folder.mkdir(parents=True)
    rows = {"user_id_hash": [5, -3], "item_hash": [[1, 2], [17]], "item_price": [[1.0, 1.0], [1.0]]}
    pq.write_table(pa.table({**rows, "behaviour_item": [[2, 0], [33]]}), folder / "part.parquet")
    return tmp_path


def test_shared_rows_by_hand(samples):
    items, users = id_tables(samples, 16, 0.1)
    assert (items["table"], items["ids"], items["shared"]) == ("item", 4, 0.75)  # 1, 17 and 33 share row 1
    assert (users["table"], users["ids"], users["shared"]) == ("user", 2, 0.0)  # -3 is in row 13
    assert items["expected"] == pytest.approx(1 - (15 / 16) ** 3)


@pytest.mark.parametrize(("ids", "share"), [(1, 0.1), (2, 0.01), (1000, 0.05), (70_000, 0.3)])
def test_the_advice_is_the_least_power_of_two(ids, share):
    rows = rows_for(ids, share)
    assert rows & (rows - 1) == 0 and shared(ids, rows) <= share
    assert rows == 16 or shared(ids, rows // 2) > share


def test_the_expected_share_is_that_of_random_ids():
    drawn = np.random.default_rng(0).integers(0, 4096, (200, 1000))
    alone = np.mean([np.sum(np.bincount(row, minlength=4096) == 1) / 1000 for row in drawn])
    assert shared(1000, 4096) == pytest.approx(1 - alone, abs=0.004)


def test_the_verb_prints_a_row_a_table(samples):
    result = CliRunner().invoke(app, ["data", "ids", "--samples", str(samples), "--set", "model.table_rows=16"])
    assert result.exit_code == 0
    assert "item" in result.output and "75.0%" in result.output
