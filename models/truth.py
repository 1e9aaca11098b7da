"""Scores against the truth of a simulation: the click probability of every candidate, exposed or not.

Sample rows hold the exposed candidates and a uniform sample of the others; weighting the latter by the inverse of
their sampling rate makes AUC an estimate for the entire candidate list, the space that exposure-only labels cannot
judge (UniScale 3.1). NDCG has no such weighting, so it is of the sampled list and named so.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models import metrics
from models.cells import Floats
from models.judged import NDCG_AT, Measures
from models.rows import Rows
from uniscale.errors import DataError
from uniscale.samples import Sampling

COLUMNS = {"click": "click_probability", "conversion": "purchase_probability"}


def truth_of(logs: Path) -> Path | None:
    """The truth beside the logs of a simulation; None where logs have none."""
    folder = Path(logs) / "truth"
    return folder if folder.exists() else None


def measure_truth(
    rows: Rows, scores: Mapping[str, Mapping[str, Floats]], items: pa.Table, truth: Path, found: Measures
) -> None:
    """Add `truth.<task>.auc` (entire list, estimated) and `truth.<task>.ndcg@10_of_sampled` for every model.

    Args:
        rows: target-domain rows, exposed and unexposed, with `sampling` and the key request_id.
        scores: model: task: (N,).
        items: columns index and item_id of the samples' items.
        truth: folder of `day=…/*.parquet` with request_id, item_ids and a probability list a task.
        found: takes the measures.

    Raises:
        DataError: the truth lacks a day or a column.
    """
    tasks = [task for task in rows.spec.tasks if task in COLUMNS]
    days = np.unique(rows.ts.astype("datetime64[s]").astype("datetime64[D]").astype(str))
    files = [file for day in days for file in sorted((Path(truth) / f"day={day}").glob("*.parquet"))]
    if not files:
        raise DataError(
            f"{truth} holds none of the days {days[0]} to {days[-1]}: give the truth of these logs, or none"
        )
    names = ["request_id", "item_ids", *(COLUMNS[task] for task in tasks)]
    table = pa.concat_tables([pq.ParquetFile(file).read(columns=names) for file in files])
    place, listed = _match(rows, items, table)
    known = place >= 0
    weight = _weights(rows, listed)[known]
    request = rows.request_of[known]
    found.set("truth.matched_share", float(known.mean()) if len(known) else float("nan"), "there are no rows")
    for task in tasks:
        probability = pc.list_flatten(table[COLUMNS[task]]).to_numpy()[place[known]].astype(np.float64)
        for model, of_tasks in scores.items():
            prefix = "" if model == "candidate" else f"{model}."
            value = of_tasks[task][known]
            why = "no candidate of the test rows is in the truth"
            found.set(f"{prefix}truth.{task}.auc", metrics.expected_auc(probability, value, weight), why)
            ndcg = metrics.ndcg(probability, value, request, NDCG_AT)
            mean = float(np.nanmean(ndcg)) if np.isfinite(ndcg).any() else float("nan")
            found.set(f"{prefix}truth.{task}.ndcg@{NDCG_AT}_of_sampled", mean, why)


def _match(rows: Rows, items: pa.Table, table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place of each candidate in the flattened truth, -1 where absent (N,), and its request's list length (R,)."""
    assert rows.keys is not None
    lengths = pc.list_value_length(table["item_ids"]).to_numpy()
    request = pc.index_in(rows.keys["request_id"], table["request_id"].combine_chunks())
    row_request = pc.fill_null(request, -1).to_numpy()
    number = pc.fill_null(
        pc.index_in(pc.list_flatten(table["item_ids"]), items["item_id"].combine_chunks()), -1
    ).to_numpy()
    index = items["index"].to_numpy()
    flat_items = np.where(number >= 0, index[number], -1)
    size = int(index.max(initial=0)) + 1
    key = np.repeat(np.arange(len(lengths)), lengths) * size + flat_items
    wanted = row_request[rows.request_of] * size + rows.item
    order = np.argsort(key, kind="stable")
    spot = np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)
    place = np.where(key[order][spot] == wanted, order[spot], -1)
    place[(row_request[rows.request_of] < 0) | (rows.item == 0)] = -1
    return place, np.where(row_request >= 0, lengths[row_request], 0)


def _weights(rows: Rows, listed: NDArray[np.int64]) -> Floats:
    """1 for an exposed candidate, (listed - exposed) / sampled for an unexposed one. listed: (R,)."""
    request, exposed = rows.request_of, rows.sampling == Sampling.EXPOSED
    shown = np.bincount(request[exposed], minlength=rows.requests)
    sampled = np.bincount(request[~exposed], minlength=rows.requests)
    each = np.divide(listed - shown, sampled, out=np.ones(rows.requests), where=sampled > 0)
    return np.where(exposed, 1.0, each[request])
