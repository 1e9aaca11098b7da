"""The query corpus in the order in which its queries were first typed, searched as of a moment (UniScale 3.3.2).

What was known at a moment is a prefix of that order: some full blocks of `BLOCK` queries and a part of the next. A full
block is searched by an inverted file made of its own vectors alone, the part exactly. So no query typed later changes
an answer, and a search costs at most `BLOCK` cosines and `PROBES` lists a full block.

Queries of the same words in another order have the same vector but for the rounding of its sums, so the first typed of
those nearest is found within that rounding (in a full block, of its `TIED` nearest), whatever batch a title comes in.
"""

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

BLOCK = 50_000  # queries, also what is encoded at a time
PROBES = 16  # lists of an inverted file searched, of √BLOCK
EQUAL = 1e-6  # cosines that differ by less are equal
TIED = 32  # nearest queries of a full block among which the first typed is looked for


def write_block(folder: Path, number: int, vectors: np.ndarray, first_asked: np.ndarray) -> None:
    """Write the block `number`: unit vectors (n, d) and the times (n,) their queries were first typed, ascending.

    Every block but the last is full: n = `BLOCK`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{number:05d}.vectors.npy", vectors)
    np.save(folder / f"{number:05d}.times.npy", first_asked)
    if len(vectors) < BLOCK:
        return
    width = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, int(np.sqrt(BLOCK)), faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = PROBES
    faiss.write_index(index, str(folder / f"{number:05d}.ivf"))


def nearest(folder: Path, titles: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The query nearest to each title (n, d) of those first typed before its moment (n,); of equals the first typed.

    Returns:
        cosine (n,), and row in the corpus (n,), -1 where nothing had been typed or no query is like the title at all
        (a cosine above `EQUAL`).
    """
    times = [np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.times.npy"))]
    starts = np.array([block[0] for block in times if len(block)], np.int64)
    partial = np.searchsorted(starts, asked) - 1  # (n,) the block that a moment cuts, -1 before the first query
    best, row = np.zeros(len(titles), np.float32), np.full(len(titles), -1)

    def offer(places: np.ndarray, cosine: np.ndarray, rows: np.ndarray) -> None:
        better = cosine > best[places] + EQUAL
        row[places[better]] = rows[better]
        best[places] = np.maximum(best[places], cosine)

    for number in range(int(partial.max(initial=-1)) + 1):
        first = number * BLOCK
        if len(whole := np.nonzero(partial > number)[0]):
            index = faiss.read_index(str(folder / f"{number:05d}.ivf"), faiss.IO_FLAG_MMAP)
            cosine, rows = index.search(titles[whole], TIED)  # (n, TIED), the nearest first
            tied = cosine >= cosine[:, :1] - EQUAL
            offer(whole, cosine[:, 0], np.where(tied, rows, BLOCK).min(axis=1) + first)
        vectors = np.load(folder / f"{number:05d}.vectors.npy", mmap_mode="r")
        for place in np.nonzero(partial == number)[0]:
            cosine = vectors[: np.searchsorted(times[number], asked[place])] @ titles[place]
            highest = cosine.max()
            offer(np.array([place]), np.array([highest]), np.array([np.argmax(cosine >= highest - EQUAL) + first]))
    return best, row


def nearest_queries(pseudo: DataFrame, folder: Path) -> DataFrame:
    """Rule 3, by ANN: the query nearest to the title of each pseudo-request's item, of those typed before it.

    Args:
        pseudo: request_id, asked (microseconds), text (array<float>, unit length: the title).
        folder: written by `write_block`; every worker maps it into memory.

    Returns:
        request_id, query_row; requests without such a query are left out.
    """

    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(1)
        for batch in batches:
            titles = batch.column("text").flatten().to_numpy().reshape(batch.num_rows, -1)
            _, rows = nearest(folder, np.ascontiguousarray(titles, np.float32), batch.column("asked").to_numpy())
            found = pa.array(rows >= 0)
            yield pa.record_batch(
                {
                    "request_id": batch.column("request_id").filter(found),
                    "query_row": pa.array(rows, pa.int64()).filter(found),
                }
            )

    wanted = pseudo.select("request_id", "asked", "text")
    return wanted.mapInArrow(search, "request_id string, query_row long")
