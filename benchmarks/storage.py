"""What the columns that training reads cost in each storage form: bytes, and candidates a second on one core.

`python -m benchmarks.storage [--samples FOLDER] [--repeats 9]`

All rows of a samples folder (without one: random rows as `benchmarks.loader` makes them) are written in memory as one
file in each form and read back into Arrow. Rates are of the least CPU time of the repeats, which take turns. The last
line is what comes after any of them: flat arrays from Arrow. Reading a form and making arrays of it adds their times.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.listwise import spec_of
from benchmarks.loader import write
from models.data import row_columns
from models.rows import rows_from_arrow
from uniscale.samples import SampleSpec, row_schema

ZSTD = {"compression": "zstd", "compression_level": 6}  # as ES3 writes
PLAIN = {"compression": "none", "use_dictionary": False}


def with_lists(table: pa.Table, nullable: bool, missing: float | None = None) -> pa.Table:
    """The table with lists whose elements may be null or none may, missing numbers written as a number if given."""
    columns, fields = [], []
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if pa.types.is_list(field.type):
            element, filled = field.type.value_field.with_nullable(nullable), column.flatten()
            if missing is not None and pa.types.is_floating(element.type):
                filled = filled.fill_null(missing)
            column = pa.ListArray.from_arrays(_offsets(column), filled, type=pa.list_(element))
            field = field.with_type(column.type)
        columns.append(column)
        fields.append(field)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def packed(table: pa.Table) -> pa.Table:
    """The table with each list as one value of bytes, missing numbers NaN: no list for whoever else reads it."""
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_list(column.type):
            values = column.flatten()
            values = values.fill_null(np.nan) if values.null_count else values
            starts = pa.array(_offsets(column).to_numpy() * (values.type.bit_width // 8), pa.int32())
            data = pa.py_buffer(values.to_numpy().tobytes())
            column = pa.Array.from_buffers(pa.binary(), len(column), [None, starts.buffers()[1], data])
        columns[name] = column
    return pa.table(columns)


def _offsets(lists: pa.Array) -> pa.Array:
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def forms(table: pa.Table) -> Iterator[tuple[str, bytes, Callable[[bytes], pa.Table]]]:
    """Name, bytes and reader of every form."""
    required, bare = with_lists(table, False, np.nan), packed(table)
    for name, rows, options in (
        ("as ES3 writes", table, ZSTD),
        ("list elements may all be null", with_lists(table, True), ZSTD),
        ("none may, NaN for missing numbers", required, ZSTD),
        ("as ES3, zstd 1", table, {"compression": "zstd", "compression_level": 1}),
        ("as ES3, lz4", table, {"compression": "lz4"}),
        ("as ES3, no codec", table, {"compression": "none"}),
        ("as ES3, data pages of version 2", table, {**ZSTD, "data_page_version": "2.0"}),
        ("as ES3, row groups of 4,096 requests", table, {**ZSTD, "row_group_size": 4096}),
        ("none may, no dictionaries, no codec", required, PLAIN),
        ("a list is a value of bytes, no dictionaries, zstd 6", bare, {**ZSTD, "use_dictionary": False}),
        ("a list is a value of bytes, no dictionaries, lz4", bare, {**PLAIN, "compression": "lz4"}),
        ("a list is a value of bytes, no dictionaries, no codec", bare, PLAIN),
    ):
        sink = io.BytesIO()
        pq.write_table(rows, sink, **options)
        yield f"Parquet, {name}", sink.getvalue(), _read_parquet
    for codec in ("lz4", None):
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_table(table)
        yield f"Arrow's own file, {codec or 'no codec'}", sink.getvalue(), _read_arrow


def _read_parquet(data: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def _read_arrow(data: bytes) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, help="samples folder; random rows if absent")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as scratch:
        samples = options.samples or write(Path(scratch), spec_of(32), 200_000, 32)
        spec = SampleSpec.load(samples)
        columns = row_columns(spec)
        files = sorted(samples.glob("rows/*/*/*.parquet"))
        rows = pa.concat_tables([pq.ParquetFile(file).read(columns=columns) for file in files])
    contract = row_schema(spec)
    types = pa.schema([contract.field(name) for name in contract.names if name in columns])
    table = rows.select(types.names).cast(types).combine_chunks()
    made = list(forms(table))
    reads: dict[str, Callable[[], object]] = {name: partial(read, data) for name, data, read in made}
    reads["flat arrays, from Arrow"] = partial(rows_from_arrow, table, spec)
    least = dict.fromkeys(reads, np.inf)
    for _ in range(options.repeats):
        for name, read in reads.items():
            started = time.process_time()
            read()
            least[name] = min(least[name], time.process_time() - started)
    candidates, size = len(table["item"].combine_chunks().flatten()), {name: len(data) / 1e6 for name, data, _ in made}
    print(
        f"{len(table):,} requests, {candidates:,} candidates, {table.num_columns} columns, {table.nbytes / 1e6:.1f} MB"
    )
    print("| form | MB | candidates a CPU second | MB of Arrow a CPU second |\n| --- | ---: | ---: | ---: |")
    for name, seconds in least.items():
        rates = f"{candidates / seconds / 1e6:.2f} M | {table.nbytes / seconds / 1e6:,.0f}"
        print(f"| {name} | {f'{size[name]:.2f}' if name in size else ''} | {rates} |")


if __name__ == "__main__":
    main()
