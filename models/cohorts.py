"""Slices of the judged rows that a better mean may hide: scenarios, users by activity, items by popularity.

Cohorts are made from what every samples folder has, so they mean the same for any source of logs.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.data import RowFile
from models.judged import Slice
from models.rows import Rows
from uniscale.samples import Sampling

HEAD_SHARE = 0.5  # the most exposed items that together make this share of the training exposures are the head


def slices_of(rows: Rows, train_files: list[RowFile]) -> list[Slice]:
    """Every slice of rows: by scenario (they may overlap), by user cohort, by item cohort.

    Users are `new` without any behaviour on record, else `light` or `heavy`, split at the median history of the
    judged requests. Items are `new` without an exposure in training, else `head` (see HEAD_SHARE) or `tail`.
    """
    request_of = rows.request_of
    found = [
        Slice("scenario", name, rows.scenarios[request_of, place] > 0) for place, name in enumerate(rows.spec.scenarios)
    ]
    history = np.diff(rows.behaviour_offsets)
    median = float(np.median(history[history > 0])) if (history > 0).any() else 0.0
    user = np.where(history == 0, "new", np.where(history < median, "light", "heavy"))[request_of]
    found += [Slice("user_cohort", name, user == name) for name in ("new", "light", "heavy")]
    exposures = exposures_of_items(train_files, int(rows.item.max(initial=0)) + 1)
    item = item_cohorts(exposures)[rows.item]
    found += [Slice("item_cohort", name, item == name) for name in ("new", "tail", "head")]
    return [part for part in found if part.rows.any()]


def exposures_of_items(files: list[RowFile], size: int) -> NDArray[np.int64]:
    """Exposed rows of every item index below `size` (and beyond, where training saw more) in some files."""
    counts = np.zeros(size, np.int64)
    for file in files:
        table = pq.ParquetFile(file.path).read(columns=["item", "sampling"])
        item, sampling = (_flat(table[name]) for name in ("item", "sampling"))
        seen = np.bincount(item[sampling == Sampling.EXPOSED], minlength=len(counts))
        counts = np.append(counts, np.zeros(len(seen) - len(counts), np.int64)) + seen
    return counts


def item_cohorts(exposures: NDArray[np.int64]) -> NDArray[np.str_]:
    """`new`, `tail` or `head` for every item index. exposures: (items,)."""
    order = np.argsort(-exposures, kind="stable")
    before = np.cumsum(exposures[order]) - exposures[order]
    head = np.zeros(len(exposures), bool)
    head[order] = before < HEAD_SHARE * exposures.sum()
    return np.where(exposures == 0, "new", np.where(head, "head", "tail"))


def _flat(column: pa.ChunkedArray) -> NDArray:
    return pc.list_flatten(column).to_numpy()
