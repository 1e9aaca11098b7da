"""Writes the serving log without ever making a request wait: a bounded buffer, a thread, whole Parquet files.

Beside each day folder nothing half-written is visible: a file is written under a hidden name and renamed. When the
buffer is full a row is dropped and counted, never waited for (contract: `uniscale.serving_log`).
"""

import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uniscale.serving_log import SCHEMA


class LogWriter:
    """Rows of a schema to `folder/day=YYYY-MM-DD/*.parquet`, flushed every `interval_seconds` and on `close`.

    `count` is told how many rows were dropped, whenever some are.
    """

    def __init__(
        self,
        folder: Path,
        capacity: int = 20_000,
        interval_seconds: float = 2.0,
        schema: pa.Schema = SCHEMA,
        count: Callable[[int], None] = lambda rows: None,
    ):
        self._folder, self._schema, self._columns = Path(folder), schema, frozenset(schema.names)
        self._capacity, self._interval_seconds, self._count = capacity, interval_seconds, count
        self._rows: deque[Mapping[str, Any]] = deque()
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self.written = self.dropped = 0
        self.error: str | None = None  # why the last flush failed, None when it did not
        self._thread = threading.Thread(target=self._run, name="serving-log", daemon=True)
        self._thread.start()

    def append(self, row: Mapping[str, Any]) -> bool:
        """Take a row of the schema's columns; False when the buffer is full and the row was dropped."""
        assert row.keys() == self._columns, f"row and log differ in {sorted(row.keys() ^ self._columns)}"
        if len(self._rows) >= self._capacity:
            self._drop(1)
            return False
        self._rows.append(row)
        return True

    def flush(self) -> None:
        """Write what is buffered; on an error (disk full, no permission) the rows stay buffered for the next time."""
        with self._writing:
            count = len(self._rows)
            by_day: dict[str, list[Mapping[str, Any]]] = {}
            for row in (self._rows.popleft() for _ in range(count)):
                by_day.setdefault(f"{row['ts'].astimezone(UTC):%Y-%m-%d}", []).append(row)
            self.error = None
            for day, rows in by_day.items():
                try:
                    self._write(self._folder / f"day={day}", rows)
                    self.written += len(rows)
                except OSError as error:
                    self.error = f"{type(error).__name__}: {error}"
                    self._rows.extendleft(reversed(rows))
                except Exception as error:  # rows no file can hold: keeping them would stop every later flush
                    self.error = f"{type(error).__name__}: {error}"
                    self._drop(len(rows))

    def close(self) -> None:
        """Stop the thread and write what is left; rows that still cannot be written count as dropped."""
        self._stop.set()
        self._thread.join()
        self.flush()
        self._drop(len(self._rows))
        self._rows.clear()

    def _drop(self, rows: int) -> None:
        self.dropped += rows
        self._count(rows)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_seconds):
            if self._rows:
                self.flush()

    def _write(self, folder: Path, rows: list[Mapping[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Wall clock, process and a random part: workers share the folder, and a restart may reuse a process id.
        name = f"part-{time.time_ns()}-{os.getpid()}-{uuid.uuid4().hex[:6]}.parquet"
        hidden = folder / f".{name}"
        try:
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], self._schema), hidden, compression="zstd")
            os.replace(hidden, folder / name)
        finally:
            hidden.unlink(missing_ok=True)
