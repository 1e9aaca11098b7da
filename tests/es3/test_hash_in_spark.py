"""The project's one hash, in Spark SQL and in Python."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from uniscale.hashing import hash_many

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.xdist_group("spark")]
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz0123456789 -_",
    "äöüßéèñçøł",
    "Ωλπжщъ",
    "検索商品靴赤",
    "👟🛒🧀🇨🇭",
    "\x00\t\n\u200b\ufeff\U0010ffff",
)


def test_a_million_strings_hash_alike(spark, tmp_path):
    rng = np.random.default_rng(0)
    letters = "".join(ALPHABETS)
    lengths = rng.integers(0, 40, 1_000_000)
    ends = np.cumsum(lengths)
    whole = "".join([letters[place] for place in rng.integers(0, len(letters), ends[-1]).tolist()])
    texts = [whole[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]
    pq.write_table(pa.table({"row": np.arange(len(texts)), "text": texts}), tmp_path / "texts.parquet")
    hashed = spark.read.parquet(str(tmp_path / "texts.parquet")).select("row", F.xxhash64("text").alias("hash"))
    hashed.write.parquet(str(tmp_path / "hashed"))
    found = pq.read_table(tmp_path / "hashed").sort_by("row")["hash"].to_numpy()
    assert (found == hash_many(texts)).all()
    assert len(set(texts)) == len(np.unique(found))  # and no two of these strings share one
