"""Rankings as cells: the runs of equal (group, score), found with one sort of packed 64-bit keys.

A key is 31 bits of group, 32 of score and 1 of label, so that sorting moves the label along and gathers nothing.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from uniscale.errors import DataError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
MAX_GROUPS = 1 << 31


def group_codes(*columns: ArrayLike | pa.Array | pa.ChunkedArray) -> Codes:
    """Number the distinct tuples of some columns: (n,) int64 in 0..groups-1, by first appearance.

    `group_codes(user_id, query)` are the groups of GAUC. A null is a value of its own.
    """
    if not columns:
        raise DataError("group_codes needs at least one column, got none")
    codes, dense = _numbers(columns[0])
    for column in columns[1:]:
        numbers, _ = _numbers(column)
        pairs = codes * (int(numbers.max(initial=0)) + 1) + numbers  # below 2^62, as both are below 2^31
        codes, dense = _dictionary_codes(pa.array(pairs)), True
    return codes if dense else _dictionary_codes(pa.array(codes))


@dataclass(frozen=True)
class Cells:
    """Runs of equal (group, score) in ascending order: their group, rows and positives, (M,) each."""

    group: Codes
    size: NDArray[np.int64]
    positives: Floats
    groups: int


def rank_cells(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> Cells:
    """Cells of a ranking; all (n,). DataError for rows that differ in number, labels not 0 or 1, NaN scores."""
    y = check_labels(labels)
    codes = check_groups(groups, len(y))
    keys = sort_keys(check_scores(scores, len(y)), codes)
    keys = (keys << np.uint64(1)) | y.astype(np.uint64)
    keys.sort()  # the label travels in the lowest bit, so nothing is gathered afterwards
    starts = run_starts(keys >> np.uint64(1))
    size = np.diff(np.append(starts, len(keys)))
    label = (keys & np.uint64(1)).astype(np.float64)
    return Cells(
        group=(keys[starts] >> np.uint64(33)).astype(np.int64),
        size=size,
        positives=np.add.reduceat(label, starts) if len(starts) else np.zeros(0),
        groups=int(codes.max(initial=-1)) + 1,
    )


def sort_keys(scores: NDArray, codes: Codes) -> NDArray[np.uint64]:
    """uint64 whose order is that of (group, score), equal exactly where both are."""
    return (codes.astype(np.uint64) << np.uint64(32)) | order_bits(scores).astype(np.uint64)


def order_bits(scores: NDArray) -> NDArray[np.uint32]:
    """32 bits in the order of the scores: those of a float32, or the rank where float32 would merge two scores."""
    with np.errstate(over="ignore"):
        narrow = scores.astype(np.float32) + np.float32(0.0)  # -0.0 becomes 0.0
    if scores.dtype != np.float32 and not np.array_equal(narrow, scores):
        return np.unique(scores, return_inverse=True)[1].astype(np.uint32)
    bits = narrow.view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))


def run_starts(ordered: NDArray) -> NDArray[np.int64]:
    """First index of every run of equal values."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    return np.append(0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)


def within_group_cumsum(values: NDArray, cells: Cells) -> NDArray:
    """Inclusive cumulative sum over the cells of each group. values: (M,)."""
    running = np.cumsum(values)
    starts = run_starts(cells.group)
    before = np.append(0.0, running)[starts]
    return running - np.repeat(before, np.diff(np.append(starts, len(values))))


def _numbers(column: ArrayLike | pa.Array | pa.ChunkedArray) -> tuple[Codes, bool]:
    """Numbers below 2^31, equal where the values are, and whether they are codes by first appearance.

    Integers of a small range are told apart by what they exceed the smallest by, which needs no hash table.
    """
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return _dictionary_codes(column), True
    values = np.asarray(column)
    if values.dtype.kind == "i" and len(values) and int(values.max()) - int(values.min()) < MAX_GROUPS:
        return values.astype(np.int64) - int(values.min()), False
    return _dictionary_codes(pa.array(values)), True


def _dictionary_codes(values: pa.Array | pa.ChunkedArray) -> Codes:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = pc.dictionary_encode(whole, null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def check_labels(labels: ArrayLike) -> NDArray:
    """Labels as an array (n,); DataError unless all are 0 or 1."""
    y = np.asarray(labels)
    if y.ndim != 1:
        raise DataError(f"labels must be one-dimensional, got shape {y.shape}")
    wrong = (y != 0) & (y != 1)
    if wrong.any():
        raise DataError(f"labels must be 0 or 1, got {y[wrong][0]!r}: drop or encode such rows first")
    return y


def check_scores(scores: ArrayLike, rows: int) -> NDArray:
    """Scores as an array (rows,); DataError for another shape or a NaN."""
    s = np.asarray(scores)
    if s.shape != (rows,):
        raise DataError(f"labels have {rows} rows but scores have shape {s.shape}: they must be the same rows")
    if np.isnan(s).any():
        raise DataError(f"{int(np.isnan(s).sum())} of {rows} scores are NaN: the model diverged or read a NaN feature")
    return s


def check_groups(groups: ArrayLike, rows: int) -> Codes:
    """Group codes as int64 (rows,); DataError for another shape, another type or codes out of range."""
    codes = np.asarray(groups)
    if codes.shape != (rows,) or (rows and not np.issubdtype(codes.dtype, np.integer)):
        raise DataError(f"groups must be {rows} integers, got {codes.dtype} of shape {codes.shape}: use group_codes")
    if rows and (codes.min() < 0 or codes.max() >= MAX_GROUPS):
        raise DataError(f"groups must be in 0..{MAX_GROUPS - 1}, got {codes.min()}..{codes.max()}: use group_codes")
    return codes.astype(np.int64, copy=False)
