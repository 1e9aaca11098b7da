"""Reading a samples folder: subsets of Table 1, shuffled requests, resumable positions, an asynchronous prefetcher.

The four subsets are filters of one ES3 output (UniScale Table 1), so ablations compare the very same rows. The
prefetching thread is the paper's high-concurrency data reader (UniScale 3.5).
"""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.batches import Batch, to_batch
from models.distributed import World
from models.rows import ItemVectors, Rows, rows_from_arrow
from uniscale.artifacts import read_json
from uniscale.errors import DataError
from uniscale.samples import LabelSource, SampleSpec, Sampling

Subset = Literal["search", "unexposed", "attributed", "entire"]
T = TypeVar("T")


def restrict(rows: Rows, subset: Subset) -> Rows:
    """Rows of one line of Table 1, from rows that carry `sampling` and `label_source`.

    search: target domain, exposed, in-domain labels (also how every model is validated and tested); unexposed: plus
    the unexposed candidates; attributed: plus every label; entire: plus the searchified rows of other domains.
    """
    if subset == "entire":
        return rows
    assert rows.sampling is not None and rows.label_source is not None
    allowed = [Sampling.EXPOSED] if subset == "search" else [Sampling.EXPOSED, Sampling.UNEXPOSED]
    kept = rows.keep(np.isin(rows.sampling, allowed) & (rows.domain == 0)[rows.request_of])
    if subset != "attributed":
        assert kept.label_source is not None
        kept.labels[kept.label_source != LabelSource.IN_DOMAIN] = 0.0
    return kept


@dataclass(frozen=True)
class RowFile:
    """One Parquet file of rows: its size comes from the footer alone."""

    path: Path
    requests: int
    candidates: int


def row_files(samples: Path, split: str, subset: Subset, spec: SampleSpec) -> list[RowFile]:
    """Files of a split of the manifest (train, valid, test), pruned by day and domain, in path order.

    Raises:
        DataError: the manifest has no such split, or no file falls into it.
    """
    splits = read_json(Path(samples) / "manifest.json")["splits"]
    if split not in splits:
        raise DataError(f"{samples}/manifest.json has no split {split!r}; it has {sorted(splits)}")
    first, last = splits[split]
    files = []
    for day in sorted((Path(samples) / "rows").glob("day=*")):
        if not first <= day.name.removeprefix("day=") <= last:
            continue
        for path in sorted(day.glob("domain=*/*.parquet")):
            if subset == "entire" or path.parent.name == f"domain={spec.domains[0]}":
                files.append(_footer(path))
    if not files:
        raise DataError(f"{samples} has no rows for {split} ({first} to {last}), subset {subset}: build more days")
    return files


def _footer(path: Path) -> RowFile:
    footer = pq.read_metadata(path)
    leaf = next(i for i in range(footer.num_columns) if footer.schema.column(i).path.split(".")[0] == "item")
    candidates = sum(footer.row_group(g).column(leaf).num_values for g in range(footer.num_row_groups))
    return RowFile(path, footer.num_rows, candidates)


def read_rows(files: list[RowFile], spec: SampleSpec, subset: Subset, keys: tuple[str, ...] = ()) -> Rows:
    """All rows of some files, restricted to a subset, in the files' order.

    Args:
        files: from `row_files`.
        spec: the features to read; columns outside it are not read from disk.
        subset: see `restrict`.
        keys: request-level columns kept aside (`Rows.keys`).
    """
    columns = list(dict.fromkeys([*row_columns(spec), *keys]))
    table = pa.concat_tables([pq.ParquetFile(file.path).read(columns=columns) for file in files])
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise DataError(f"{files[0].path} lacks {missing}: build the samples again with the spec in use")
    return restrict(rows_from_arrow(table, spec, keys), subset)


def row_columns(spec: SampleSpec) -> list[str]:
    """Names of the columns of a samples folder that a model with this spec is trained from."""
    names = [f.name for f in spec.features]
    names += ["domain_index", "scenarios", "ts", "query_text", "item", "sampling", "behaviour_index", "behaviour_ts"]
    return names + [column for task in spec.tasks for column in (task, f"{task}_source")]


def in_order(rows: Rows, vectors: ItemVectors, batch_samples: int) -> Iterator[Batch]:
    """Batches of about `batch_samples` candidates in the rows' own order, whole requests each."""
    for requests in _chunks(np.arange(rows.requests), rows.offsets, batch_samples):
        yield to_batch(rows.take(requests), vectors)


class Position(NamedTuple):
    """The next batch to read: enough to resume exactly, without reading what came before."""

    epoch: int
    buffer: int
    batch: int


class Reader:
    """Shuffled batches of one split, the same for the same (seed, epoch) wherever reading starts.

    Files are shuffled and read in buffers of about `buffer_samples` candidates, requests are shuffled within a
    buffer. Data that fit in one buffer are read once and stay in memory.

    Args:
        samples: the samples folder.
        split: of its manifest.
        subset: see `restrict`.
        batch_samples: candidates a batch, over all ranks.
        seed: of the order.
        buffer_samples: candidates a buffer.
        by_time: requests in order of time instead, a buffer a day.
        world: a rank reads its share of every batch.
        spec: the features to read; all that the samples offer when left out.
    """

    def __init__(
        self,
        samples: Path,
        split: str,
        subset: Subset,
        batch_samples: int,
        seed: int,
        buffer_samples: int = 1 << 20,
        by_time: bool = False,
        world: World | None = None,
        spec: SampleSpec | None = None,
    ):
        self.spec = spec or SampleSpec.load(samples)
        self.vectors = ItemVectors.load(samples, self.spec)
        self.files = row_files(samples, split, subset, self.spec)
        self.subset: Subset = subset
        self.batch_samples, self.seed, self.buffer_samples = batch_samples, seed, buffer_samples
        self.by_time, self.world = by_time, world or World()
        self._kept: Rows | None = None

    @property
    def stored_candidates(self) -> int:
        """Candidates in the files, before the subset's filter."""
        return sum(file.candidates for file in self.files)

    def first_buffer(self) -> Rows:
        """The rows that statistics of the inputs are taken from: the first buffer in the order of epoch 0."""
        return self._read(self._buffers(0)[0])

    def expected_candidates(self, first: Rows) -> int:
        """Candidates of an epoch after the subset's filter, estimated from what the filter left of the first buffer."""
        read = sum(file.candidates for file in self._buffers(0)[0])
        return round(self.stored_candidates * first.candidates / max(read, 1))

    def batches(self, start: Position) -> Iterator[tuple[Position, Batch]]:
        """The rest of an epoch from a position: each batch with the position that follows it."""
        buffers = self._buffers(start.epoch)
        for number in range(start.buffer, len(buffers)):
            rows = self._read(buffers[number])
            if self.by_time:
                order = np.argsort(rows.ts, kind="stable")
            else:
                order = np.random.default_rng([self.seed, start.epoch, number]).permutation(rows.requests)
            chunks = list(_chunks(order, rows.offsets, self.batch_samples))
            for place in range(start.batch if number == start.buffer else 0, len(chunks)):
                after, requests = Position(start.epoch, number, place + 1), chunks[place]
                batch = to_batch(rows.take(self.world.share(requests)), self.vectors)
                yield after, self.world.idle(batch, len(requests))

    def in_time(self, keys: tuple[str, ...]) -> Iterator[Rows]:
        """The rows of each buffer of a reader `by_time`, in the order of its batches, with keys."""
        for files in self._buffers(0):
            rows = read_rows(files, self.spec, self.subset, keys)
            yield rows.take(np.argsort(rows.ts, kind="stable"))

    def _buffers(self, epoch: int) -> list[list[RowFile]]:
        if self.by_time:
            return [list(files) for _, files in groupby(self.files, key=lambda file: file.path.parent.parent.name)]
        if self.stored_candidates <= self.buffer_samples:
            return [self.files]
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        buffers: list[list[RowFile]] = []
        held = self.buffer_samples
        for index in order:
            file = self.files[index]
            if held + file.candidates > self.buffer_samples:
                buffers.append([])
                held = 0
            buffers[-1].append(file)
            held += file.candidates
        return buffers

    def _read(self, files: list[RowFile]) -> Rows:
        if self._kept is not None:
            return self._kept
        rows = read_rows(files, self.spec, self.subset)
        if len(files) == len(self.files):
            self._kept = rows
        return rows


def prefetch(items: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """Produce items in a thread, at most `depth` ahead; an error of the producer is raised here."""
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, value = ready.get()
            if not more:
                if value is not None:
                    raise value  # type: ignore[misc]
                return
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def _chunks(order: NDArray[np.int64], offsets: NDArray[np.int64], batch_samples: int) -> Iterator[NDArray[np.int64]]:
    """Cut an order of requests into runs of about `batch_samples` candidates, at least one request each."""
    if not len(order):
        return
    batch_of = (np.cumsum(np.diff(offsets)[order]) - 1) // batch_samples
    borders = np.flatnonzero(np.diff(batch_of)) + 1
    yield from np.split(order, borders)
