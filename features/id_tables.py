"""How ids share the rows of their embedding tables, and how many rows would keep that rare.

Ids are 64-bit hashes taken modulo the rows R of a table. Of n ids, one is alone in its row with probability
(1 - 1/R)^(n-1), so a share s of them is expected not to be where R ≈ (n - 1) / -ln(1 - s). That two strings get one
64-bit hash is expected n(n - 1) / 2^65 times: not even once up to 10⁹ ids.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

from features.sql import connect, quoted, text
from uniscale.samples import SampleSpec

MEMORY_LIMIT = "2GB"


def id_tables(samples: Path, table_rows: int, share: float) -> list[dict[str, Any]]:
    """The id tables of a samples folder, largest first.

    Args:
        samples: SAMPLES folder.
        table_rows: rows R of every table.
        share: of ids in a shared row that is thought bearable, between 0 and 1.

    Returns:
        One entry a table: table, ids (distinct), shared (measured share of ids whose row holds another), expected (the
        same by the formula), rows (the least power of two at which at most `share` is expected).

    Raises:
        DataError: no samples folder.
    """
    columns: dict[str, list[str]] = {}
    for feature in SampleSpec.load(samples).features:
        if feature.kind == "id":
            name = quoted(feature.name)
            columns.setdefault(feature.table, []).append(name if feature.level == "request" else f"unnest({name})")
    files = text(Path(samples) / "rows" / "*" / "*" / "*.parquet")
    found = []
    with tempfile.TemporaryDirectory(prefix="uniscale-ids-") as spill, connect(Path(spill), MEMORY_LIMIT) as connection:
        for table, names in columns.items():
            ids = " UNION ".join(f"SELECT {name} AS id FROM read_parquet({files})" for name in names)
            row = f"(id % {table_rows} + {table_rows}) % {table_rows}"  # SQL's remainder has the sign of the id
            count, alone = connection.execute(f"""
                SELECT coalesce(sum(n), 0), count(*) FILTER (n = 1)
                FROM (SELECT count(*) AS n FROM ({ids}) WHERE id <> 0 GROUP BY {row})""").fetchall()[0]
            expected = shared(int(count), table_rows)
            measured = 1 - alone / count if count else 0.0
            entry = {"table": table, "ids": int(count), "shared": measured, "expected": expected}
            found.append({**entry, "rows": rows_for(int(count), share)})
    return sorted(found, key=lambda entry: -entry["ids"])


def shared(ids: int, rows: int) -> float:
    """Expected share of ids that are not alone in their row."""
    return 1.0 - (1.0 - 1.0 / rows) ** max(ids - 1, 0)


def rows_for(ids: int, share: float) -> int:
    """The least power of two of rows at which at most this share of ids is expected not to be alone."""
    rows = max(16, 1 << max(0, math.floor(math.log2(max(ids - 1, 1) / -math.log1p(-share))) - 1))
    while shared(ids, rows) > share:
        rows *= 2
    return rows
