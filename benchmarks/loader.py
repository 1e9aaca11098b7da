"""Candidates a second that the loader delivers on one core: Parquet to shuffled batches of tensors, no model.

`python -m benchmarks.loader [--samples FOLDER] [--candidates 200000] [--behaviours 32] [--batch 4096]`

Without a samples folder, random list-wise samples are written to a temporary one. Their Parquet files are read into the
arrays that batches are cut from, and their Arrow table too, which shows what Parquet costs. Then one epoch of batches
is read cold (Parquet included) and once more from memory, as the epochs after the first of data that fit in one buffer
are. Rates are of CPU seconds of this process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.listwise import CONTENT_DIM, ITEMS, TEXT_DIM, spec_of
from models.batches import Batch
from models.data import Position, Reader, read_rows, row_columns
from models.rows import rows_from_arrow
from uniscale.artifacts import write_json
from uniscale.samples import LabelSource, SampleSpec, Sampling, row_schema

DAY, SLATE = "2026-01-05", 30  # candidates a request


def write(
    folder: Path, spec: SampleSpec, candidates: int, behaviours: int, slate: int = SLATE, ids: int = ITEMS
) -> Path:
    """A samples folder of one training day of search requests, of so many candidates each; ids lie in 1 … ids - 1."""
    rng = np.random.default_rng(0)
    requests = candidates // slate
    columns = {}
    for field in row_schema(spec):
        list_like = pa.types.is_list(field.type)
        of_item = list_like and not field.name.startswith("behaviour") and field.name not in ("query_text", "scenarios")
        width = {"query_text": TEXT_DIM, "scenarios": 1}.get(field.name, slate if of_item else behaviours)
        count = requests * (width if list_like else 1)
        inner = field.type.value_type if list_like else field.type
        values = _values(rng, field.name, inner, count, ITEMS if field.name.endswith(("item", "_index")) else ids)
        if list_like:
            offsets = pa.array(np.arange(requests + 1) * width, pa.int32())
            columns[field.name] = pa.ListArray.from_arrays(offsets, values)
        else:
            columns[field.name] = values
    part = folder / "rows" / f"day={DAY}" / f"domain={spec.domains[0]}"
    part.mkdir(parents=True)
    table = pa.table({name: column.cast(row_schema(spec).field(name).type) for name, column in columns.items()})
    pq.write_table(table, part / "part-0.parquet", compression="zstd")
    vectors = {
        name: pa.array(list(rng.normal(size=(ITEMS, width)).astype(np.float32)), pa.list_(pa.float32()))
        for name, width in (("content", CONTENT_DIM), ("text", TEXT_DIM))
    }
    names = [f"i{index}" for index in range(1, ITEMS + 1)]
    items = pa.table({"index": pa.array(np.arange(1, ITEMS + 1), pa.int32()), "item_id": names, **vectors})
    pq.write_table(items, folder / "items.parquet")
    spec.save(folder)
    write_json(folder / "manifest.json", {"splits": {"train": [DAY, DAY]}, "seed": 0, "table1": [], "skipped": []})
    return folder


def _values(rng: np.random.Generator, name: str, kind: pa.DataType, count: int, ids: int) -> pa.Array:
    """Random values of a column; what has a meaning of its own keeps it."""
    if pa.types.is_string(kind):
        return pa.array([f"{name}{number % 1000}" for number in range(count)])
    if pa.types.is_timestamp(kind):
        return pa.array(1_767_600_000 + np.arange(count), pa.timestamp("s")).cast(pa.timestamp("us")).cast(kind)
    fixed = {"domain_index": 0, "sampling": int(Sampling.EXPOSED), "scenarios": 0}
    if name in fixed:
        return pa.array(np.full(count, fixed[name])).cast(kind)
    if name.endswith("_source"):
        return pa.array(np.full(count, int(LabelSource.IN_DOMAIN))).cast(kind)
    if pa.types.is_floating(kind):
        return pa.array(rng.gamma(2.0, 5.0, count)).cast(kind)
    if name in ("click", "conversion", "query_rule"):
        return pa.array(rng.integers(0, 2, count)).cast(kind)
    return pa.array(rng.integers(1, 100 if name in ("position", "sampling") else ids, count)).cast(kind)


def candidates_of(batches: Iterator[tuple[Position, Batch]]) -> int:
    """Candidates of some batches, made one after the other."""
    return sum(batch.candidates for _, batch in batches)


def timed(read: Callable[[], int]) -> tuple[int, float]:
    """The candidates that were read and the CPU seconds that it took."""
    start = time.process_time()
    candidates = read()
    return candidates, time.process_time() - start


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, help="samples folder, whose training split is read")
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--behaviours", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    print("| pass | candidates | CPU seconds | candidates a CPU second |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        samples = options.samples or write(
            Path(folder), spec_of(options.behaviours), options.candidates, options.behaviours
        )
        spec = SampleSpec.load(samples)
        reader = Reader(samples, "train", "entire", options.batch, seed=0)
        columns = row_columns(spec)
        table = pa.concat_tables([pq.ParquetFile(file.path).read(columns=columns) for file in reader.files])
        table = table.combine_chunks()
        measured = {
            "arrays, from Arrow": lambda: rows_from_arrow(table, spec).candidates,
            "arrays, from Parquet": lambda: read_rows(reader.files, spec, "entire").candidates,
            "batches, from Parquet": lambda: candidates_of(reader.batches(Position(0, 0, 0))),
            "batches, from memory": lambda: candidates_of(reader.batches(Position(1, 0, 0))),
        }
        for name, read in measured.items():
            candidates, seconds = timed(read)
            print(f"| {name} | {candidates:,} | {seconds:.2f} | {candidates / seconds:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
