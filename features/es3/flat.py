"""The flat form of list-wise rows, for tools that know no lists and to show what lists save (UniScale 3.3.2)."""

import tempfile
from pathlib import Path

from features.sql import connect, quoted, text
from uniscale.samples import SampleSpec, row_schema

MEMORY_LIMIT = "1GB"


def write_flat(samples: Path, out: Path) -> int:
    """Write the rows of a samples folder as one Parquet file (zstd), a row a candidate; returns its bytes.

    Behaviours stay lists and request-level columns repeat: that is what the list-wise form saves.

    Raises:
        DataError: no samples folder.
    """
    spec = SampleSpec.load(samples)
    listed = candidate_columns(spec)
    names = ((field.name, quoted(field.name)) for field in row_schema(spec))
    columns = ", ".join(f"unnest({column}) AS {column}" if name in listed else column for name, column in names)
    source, target = text(samples / "rows" / "*" / "*" / "*.parquet"), text(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spill-", dir=out.parent) as spill:
        connection = connect(Path(spill), MEMORY_LIMIT)
        connection.execute(f"COPY (SELECT {columns} FROM read_parquet({source})) TO {target} (COMPRESSION zstd)")
        connection.close()
    return out.stat().st_size


def candidate_columns(spec: SampleSpec) -> list[str]:
    """Names of the list columns with an element a candidate."""
    labels = [name for task in spec.tasks for name in (task, f"{task}_source")]
    return ["item", "sampling", "position", *labels, *(feature.name for feature in spec.select("candidate"))]
