"""The contract of list-wise rows: what may be missing in them and what may not."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sample_folder import SPEC
from uniscale.samples import row_schema


def test_a_number_of_a_candidate_may_be_missing_and_an_id_may_not(tmp_path):
    schema = row_schema(SPEC)
    row = {"item_price": [None, 2.0], "item_hash": [0, 7]}
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row], schema), path)
    assert pq.ParquetFile(path).read(columns=[*row]).to_pylist() == [row]
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        pq.write_table(pa.Table.from_pylist([row | {"item_hash": [None, 7]}], schema), path)
