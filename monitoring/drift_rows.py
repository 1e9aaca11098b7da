"""The rows of a samples folder as flat columns, a batch at a time, so that memory does not grow with the data.

Request features have one value a request, item features one an exposed candidate, behaviour features one a behaviour:
each is counted at its own level, as repeating a request's value for every candidate would count it many times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniscale.errors import DataError
from uniscale.samples import LabelSource, SampleSpec, Sampling

BATCH_REQUESTS = 4096
LENGTH = "behaviour_length"
CALENDAR = ("context_weekday",)  # follows from which days a window holds, and a few days are never whole weeks


@dataclass(frozen=True)
class Column:
    """One column under watch: where it lives and whether it is an id, a number or a 0/1 label."""

    name: str
    level: Literal["request", "candidate", "behaviour"]
    kind: Literal["id", "number", "label"]


@dataclass(frozen=True)
class Batch:
    """Flat arrays of some requests; `request` maps each candidate to its request's row in the request columns."""

    values: dict[str, np.ndarray]
    request: np.ndarray
    requests: int


def watched(spec: SampleSpec, domain: str) -> tuple[Column, ...]:
    """Columns under watch: no calendar, and labels only in the target domain, where they were observed and not made."""
    features = tuple(
        Column(f.name, f.level, "id" if f.kind == "id" else "number") for f in spec.features if f.name not in CALENDAR
    )
    length = (Column(LENGTH, "request", "number"),) if spec.select("behaviour") else ()
    labels = tuple(Column(task, "candidate", "label") for task in spec.tasks) if domain == spec.domains[0] else ()
    return (*features, *length, *labels)


def files(samples: Path, domain: str, window: tuple[str, str]) -> list[Path]:
    """Row files of a domain whose day lies in the window, both ends included."""
    found = sorted(Path(samples).glob(f"rows/day=*/domain={domain}/*.parquet"))
    return [file for file in found if window[0] <= file.parent.parent.name.removeprefix("day=") <= window[1]]


def batches(samples: Path, spec: SampleSpec, domain: str, window: tuple[str, str]) -> Iterator[Batch]:
    """Flat batches of a window: in the target domain exposed candidates only, elsewhere every candidate.

    Raises:
        DataError: a row file lacks a column of the spec.
    """
    target, columns = domain == spec.domains[0], watched(spec, domain)
    needed = {column.name for column in columns} - {LENGTH} | {"sampling"}
    needed |= {f"{column.name}_source" for column in columns if column.kind == "label"}
    if spec.select("behaviour"):
        needed.add(spec.select("behaviour")[0].name)
    for file in files(samples, domain, window):
        with pq.ParquetFile(file) as stream:
            absent = needed - set(stream.schema_arrow.names)
            if absent:
                raise DataError(
                    f"{file}: missing columns {sorted(absent)}; build the samples again with this spec.json"
                )
            for batch in stream.iter_batches(BATCH_REQUESTS, columns=sorted(needed)):
                if batch.num_rows:
                    yield _flatten(batch, columns, target)


def _flatten(batch: pa.RecordBatch, columns: tuple[Column, ...], target: bool) -> Batch:
    sampling = batch.column("sampling")
    lengths = sampling.value_lengths().to_numpy(zero_copy_only=False)
    request = np.repeat(np.arange(batch.num_rows), lengths)  # (M,)
    keep = np.ones(len(request), bool)
    if target:
        keep = sampling.flatten().to_numpy(zero_copy_only=False) == Sampling.EXPOSED
    values: dict[str, np.ndarray] = {}
    behaviour = None
    for column in columns:
        if column.name == LENGTH:
            continue
        array = batch.column(column.name)
        if column.level == "behaviour" and behaviour is None:
            behaviour = array.value_lengths().to_numpy(zero_copy_only=False)
        flat = array if column.level == "request" else array.flatten()
        found = _numpy(flat, column.kind)
        if column.kind == "label":
            source = batch.column(f"{column.name}_source").flatten().to_numpy(zero_copy_only=False)
            found = (found > 0) & (source == LabelSource.IN_DOMAIN)
        values[column.name] = found[keep] if column.level == "candidate" else found
    if behaviour is not None:
        values[LENGTH] = behaviour.astype(np.float64)
    return Batch(values, request[keep], batch.num_rows)


def _numpy(array: pa.Array, kind: str) -> np.ndarray:
    """Ids as int64 with 0 for missing, numbers as float64 with NaN for missing."""
    if kind == "number":
        return array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
