"""Keyed tables by day as Arrow files that workers map into memory: `<folder>/<day>/*.arrow`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc


def write_days(days: pa.ChunkedArray, table: pa.Table, folder: Path, number: int) -> None:
    """Write the rows of a table (n rows) under their days (n dates), as the batch `number` of each day."""
    order = pc.sort_indices(days)
    ordered, runs = table.take(order), days.take(order).combine_chunks().value_counts()
    start = 0
    for day, count in zip(runs.field("values").to_pylist(), runs.field("counts").to_pylist(), strict=True):
        _write(ordered.slice(start, count), folder / day.isoformat() / f"{number:05d}.arrow")
        start += count
    _write(ordered.slice(0, 0), folder / "empty.arrow")


def read_day(folder: Path, day: str) -> pa.Table:
    """Everything written of an ISO day, in one chunk; an empty table for a day without rows."""
    files = sorted((Path(folder) / day).glob("*.arrow")) or [Path(folder) / "empty.arrow"]
    return pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files).combine_chunks()


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
