"""List-wise rows as flat arrays: the one place that defines how raw columns become what a model reads.

Training and the ranking service share it. Both hand raw columns to `Rows.of`, training from Arrow (`rows_from_arrow`),
the service once for all its items; the one row of a request it stacks itself, and a test holds every column of it equal
to the samples'. Both call `models.batches.to_batch`, so the two cannot differ.

Shapes: R requests, N candidates of all requests (jagged by `offsets`), B behaviours of all requests (jagged by
`behaviour_offsets`), T tasks, S scenarios.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uniscale.errors import DataError
from uniscale.samples import SampleSpec


@dataclass(frozen=True)
class ItemVectors:
    """Frozen vectors of every item by index; row 0 is zero and stands for an unknown item."""

    content: NDArray[np.float32]  # (items + 1, content_dim)
    text: NDArray[np.float32]  # (items + 1, text_dim)

    @classmethod
    def load(cls, folder: Path, spec: SampleSpec) -> "ItemVectors":
        """Read `items.parquet` of a samples or features folder.

        Raises:
            DataError: the file is missing or a vector has another width than the spec says.
        """
        path = Path(folder) / "items.parquet"
        if not path.exists():
            raise DataError(f"no {path}: run the step that builds the features")
        table = pq.ParquetFile(path).read(columns=["index", "content", "text"])
        index = table["index"].to_numpy()
        size = int(index.max(initial=0)) + 1
        matrices = []
        for name, width in (("content", spec.content_dim), ("text", spec.text_dim)):
            matrix = np.zeros((size, width), np.float32)
            if width:
                matrix[index] = _vectors(table[name], name, width)
            matrices.append(matrix)
        return cls(*matrices)


@dataclass(frozen=True)
class Rows:
    """List-wise rows as flat host arrays, columns of one level and type stacked in the spec's order.

    A missing id is 0, a missing number NaN. `sampling`, `label_source` and `keys` never reach a model.
    """

    spec: SampleSpec
    offsets: NDArray[np.int64]  # (R+1,) into the candidates
    behaviour_offsets: NDArray[np.int64]  # (R+1,) into the behaviours
    request_ids: NDArray[np.int64]  # (R, ·)
    request_numbers: NDArray[np.float32]  # (R, ·)
    query_text: NDArray[np.float32]  # (R, text_dim)
    domain: NDArray[np.int64]  # (R,)
    scenarios: NDArray[np.float32]  # (R, S) multi-hot
    ts: NDArray[np.int64]  # (R,) seconds since 1970
    candidate_ids: NDArray[np.int64]  # (N, ·)
    candidate_numbers: NDArray[np.float32]  # (N, ·)
    item: NDArray[np.int32]  # (N,) index into ItemVectors
    labels: NDArray[np.float32]  # (N, T)
    behaviour_ids: NDArray[np.int64]  # (B, ·), oldest first within a request
    behaviour_numbers: NDArray[np.float32]  # (B, ·)
    behaviour_index: NDArray[np.int32]  # (B,) index into ItemVectors
    behaviour_ts: NDArray[np.int64]  # (B,) seconds since 1970
    sampling: NDArray[np.int8] | None = None  # (N,)
    label_source: NDArray[np.int8] | None = None  # (N, T)
    keys: pa.Table | None = None  # (R rows) request_id, user_id, query, …

    @classmethod
    def of(
        cls,
        spec: SampleSpec,
        columns: Mapping[str, NDArray],
        offsets: NDArray[np.int64],
        behaviour_offsets: NDArray[np.int64],
    ) -> "Rows":
        """Stack raw columns, by name: every feature of the spec and domain_index, scenarios (R, S), ts (R,) seconds,
        query_text (R, text_dim), item (N,), behaviour_index (B,), behaviour_ts (B,) seconds; tasks (N,) when known.

        Request columns are (R,), candidate columns (N,), behaviour columns (B,).

        Raises:
            DataError: a column is missing, or has another length than its level.
        """
        requests, candidates, behaviours = len(offsets) - 1, int(offsets[-1]), int(behaviour_offsets[-1])
        lengths = {"request": requests, "candidate": candidates, "behaviour": behaviours}

        def column(name: str, length: int, dtype: type) -> NDArray:
            if name not in columns:
                raise DataError(f"column {name} is missing; the model's spec needs it, given are {sorted(columns)}")
            values: NDArray = np.asarray(columns[name], dtype)
            if len(values) != length:
                raise DataError(f"column {name} has {len(values)} values, expected {length}")
            return values

        def stack(level: str, ids: bool) -> NDArray:
            chosen = [f for f in spec.features if f.level == level and (f.kind == "id") == ids]
            kind = np.int64 if ids else np.float32
            values = [column(feature.name, lengths[level], kind) for feature in chosen]
            out = np.empty((lengths[level], len(chosen)), kind)
            for start in range(0, len(out), STACKED):
                for place, each in enumerate(values):
                    out[start : start + STACKED, place] = each[start : start + STACKED]
            return out

        labels = np.zeros((candidates, len(spec.tasks)), np.float32)
        for place, task in enumerate(spec.tasks):
            if task in columns:
                labels[:, place] = column(task, candidates, np.float32)
        return cls(
            spec=spec,
            offsets=np.asarray(offsets, np.int64),
            behaviour_offsets=np.asarray(behaviour_offsets, np.int64),
            request_ids=stack("request", True),
            request_numbers=stack("request", False),
            query_text=column("query_text", requests, np.float32).reshape(requests, spec.text_dim),
            domain=column("domain_index", requests, np.int64),
            scenarios=column("scenarios", requests, np.float32).reshape(requests, len(spec.scenarios)),
            ts=column("ts", requests, np.int64),
            candidate_ids=stack("candidate", True),
            candidate_numbers=stack("candidate", False),
            item=column("item", candidates, np.int32),
            labels=labels,
            behaviour_ids=stack("behaviour", True),
            behaviour_numbers=stack("behaviour", False),
            behaviour_index=column("behaviour_index", behaviours, np.int32),
            behaviour_ts=column("behaviour_ts", behaviours, np.int64),
        )

    @property
    def requests(self) -> int:
        """R."""
        return len(self.offsets) - 1

    @property
    def candidates(self) -> int:
        """N."""
        return int(self.offsets[-1])

    @property
    def request_of(self) -> NDArray[np.int64]:
        """Request of each candidate, (N,)."""
        return np.repeat(np.arange(self.requests), np.diff(self.offsets))

    def take(self, requests: NDArray[np.int64]) -> "Rows":
        """The given requests, in that order, with their candidates and behaviours."""
        candidates, offsets = _ranges(self.offsets, requests)
        behaviours, behaviour_offsets = _ranges(self.behaviour_offsets, requests)
        picked = self._pick(REQUEST, requests) | self._pick(CANDIDATE, candidates) | self._pick(BEHAVIOUR, behaviours)
        if self.keys is not None:
            picked["keys"] = self.keys.take(pa.array(requests))
        return replace(self, offsets=offsets, behaviour_offsets=behaviour_offsets, **picked)

    def keep(self, candidates: NDArray[np.bool_]) -> "Rows":
        """Only the candidates of a mask (N,); requests left without a candidate are dropped."""
        offsets = _offsets(candidates.astype(np.int64))[self.offsets]
        filtered = replace(self, offsets=offsets, **self._pick(CANDIDATE, np.flatnonzero(candidates)))
        alive = np.flatnonzero(np.diff(offsets))
        return filtered if len(alive) == self.requests else filtered.take(alive)

    def _pick(self, names: tuple[str, ...], index: NDArray[np.int64]) -> dict[str, Any]:
        values = ((name, getattr(self, name)) for name in names)
        return {
            name: value.take(index, axis=0) for name, value in values if value is not None
        }  # faster than value[index]


STACKED = 8192  # rows stacked at a time: each column after the first finds them in the processor's cache
REQUEST = ("request_ids", "request_numbers", "query_text", "domain", "scenarios", "ts")
CANDIDATE = ("candidate_ids", "candidate_numbers", "item", "labels", "sampling", "label_source")
BEHAVIOUR = ("behaviour_ids", "behaviour_numbers", "behaviour_index", "behaviour_ts")


def rows_from_arrow(table: pa.Table, spec: SampleSpec, keys: tuple[str, ...] = ()) -> Rows:
    """Flat arrays of list-wise rows, without a loop over rows.

    Args:
        table: columns of `row_schema(spec)`; sampling kinds, label sources and `keys` are kept where present.
        spec: which features to read.
        keys: request-level columns kept aside as Arrow (`Rows.keys`), e.g. user_id and query.

    Raises:
        DataError: a column is missing, lists of one row differ in length, or a behaviour is later than its request.
    """
    lengths = _lengths(_column(table, "item"))
    # A model that reads no behaviour has no history, whatever the samples hold.
    has_history = bool(spec.select("behaviour"))
    behaviour_lengths = _lengths(_column(table, "behaviour_index")) if has_history else np.zeros_like(lengths)
    columns: dict[str, NDArray] = {name: np.zeros(0, np.int64) for name in ("behaviour_index", "behaviour_ts")}
    for feature in spec.features:
        expected = {"request": None, "candidate": lengths, "behaviour": behaviour_lengths}[feature.level]
        columns[feature.name] = _values(table, feature.name, expected)
    for name, expected in (
        ("domain_index", None),
        ("item", lengths),
        *((name, behaviour_lengths) for name in ("behaviour_index", "behaviour_ts") if has_history),
        *((task, lengths) for task in spec.tasks if task in table.column_names),
    ):
        columns[name] = _values(table, name, expected)
    columns["ts"] = _values(table, "ts", None).astype("datetime64[s]").astype(np.int64)
    columns["query_text"] = (
        _vectors(table["query_text"], "query_text", spec.text_dim)
        if spec.text_dim
        else np.zeros((table.num_rows, 0), np.float32)
    )
    scenario_lengths = _lengths(_column(table, "scenarios"))
    scenarios = np.zeros((table.num_rows, len(spec.scenarios)), np.float32)
    scenarios[np.repeat(np.arange(table.num_rows), scenario_lengths), _values(table, "scenarios", None)] = 1.0
    columns["scenarios"] = scenarios

    rows = Rows.of(spec, columns, _offsets(lengths), _offsets(behaviour_lengths))
    late = rows.behaviour_ts > np.repeat(rows.ts, behaviour_lengths)
    if late.any():
        raise DataError(f"{int(late.sum())} behaviours are later than their request (seconds since 1970 are expected)")
    sources = [f"{task}_source" for task in spec.tasks]
    known = set(table.column_names)
    return replace(
        rows,
        sampling=_values(table, "sampling", lengths) if "sampling" in known else None,
        label_source=np.stack([_values(table, s, lengths) for s in sources], 1) if set(sources) <= known else None,
        keys=table.select(list(keys)) if keys else None,
    )


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise DataError(f"column {name} is missing from the samples: build them again with the spec in use")
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    return pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _values(table: pa.Table, name: str, expected: NDArray[np.int64] | None) -> NDArray:
    column = _column(table, name)
    if expected is not None and not np.array_equal(_lengths(column), expected):
        raise DataError(f"the lists of {name} differ in length from the other lists of their rows")
    if pa.types.is_list(column.type):
        column = column.flatten()
    if column.null_count and pa.types.is_integer(column.type):
        column = column.fill_null(0)
    return column.to_numpy(zero_copy_only=False)


def _vectors(column: pa.ChunkedArray, name: str, width: int) -> NDArray[np.float32]:
    """Rows of a list column as a matrix; a null or empty list is a zero vector."""
    lists = column.combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    wrong = (lengths != 0) & (lengths != width)
    if wrong.any():
        raise DataError(f"{name} holds a vector of width {int(lengths[wrong][0])}, the spec says {width}")
    out = np.zeros((len(lists), width), np.float32)
    out[lengths != 0] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return out


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _ranges(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the chosen lists' elements, one list after the other, and the offsets of the result."""
    starts, lengths = offsets[chosen], offsets[chosen + 1] - offsets[chosen]
    new = _offsets(lengths)
    return np.arange(new[-1]) + np.repeat(starts - new[:-1], lengths), new
