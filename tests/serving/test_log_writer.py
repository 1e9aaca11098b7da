"""The serving log keeps its contract: days of ts, whole files, drops counted, nothing lost on close."""

from datetime import UTC, datetime, timedelta, timezone

import pyarrow.parquet as pq
import pytest

from serving.log_writer import LogWriter
from uniscale.serving_log import SCHEMA

NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)


def row(number: int, ts: datetime = NOON) -> dict:
    return {
        "request_id": f"r{number}",
        "ts": ts,
        "served_at": NOON,
        "user_id": "u1",
        "query": None,
        "scenario": ["keyword"],
        "variant": "champion",
        "version": "1",
        "item_ids": ["i2", "i1"],
        "scores": [0.5, None],
        "teams": None,
        "propensities": None,
        "candidates": 2,
        "fallback": None,
        "latency_ms": 1.5,
        "features_hash": -7,
    }


def read(folder):
    return [pq.ParquetFile(path).read() for path in sorted(folder.glob("day=*/*.parquet"))]


def test_rows_land_in_the_day_of_ts_and_keep_the_schema(tmp_path):
    writer = LogWriter(tmp_path, interval_seconds=60)
    late = datetime(2026, 2, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))  # 01:30 UTC of the next day
    for number, ts in enumerate((NOON, NOON, late)):
        assert writer.append(row(number, ts))
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day=2026-02-01", "day=2026-02-02"]
    first, second = read(tmp_path)
    assert first.schema.equals(SCHEMA) and first.num_rows == 2 and second["request_id"].to_pylist() == ["r2"]
    assert first.to_pylist()[0] == row(0)
    assert (writer.written, writer.dropped, writer.error) == (3, 0, None)


def test_a_full_buffer_drops_and_counts_instead_of_waiting(tmp_path):
    writer = LogWriter(tmp_path, capacity=2, interval_seconds=60)
    assert [writer.append(row(number)) for number in range(5)] == [True, True, False, False, False]
    writer.close()
    assert (writer.written, writer.dropped) == (2, 3)
    assert sum(table.num_rows for table in read(tmp_path)) == 2


def test_rows_wait_for_a_folder_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "log"
    blocked.write_text("a file where the folder should be")
    writer = LogWriter(blocked, interval_seconds=60)
    writer.append(row(0))
    writer.flush()
    assert writer.written == 0 and "Error" in writer.error
    blocked.unlink()
    writer.close()
    assert (writer.written, writer.dropped, writer.error) == (1, 0, None)
    assert read(blocked)[0]["request_id"].to_pylist() == ["r0"]


def test_rows_that_could_never_be_written_count_as_dropped_on_close(tmp_path):
    blocked = tmp_path / "log"
    blocked.write_text("a file where the folder should be")
    writer = LogWriter(blocked, interval_seconds=60)
    writer.append(row(0))
    writer.close()
    assert (writer.written, writer.dropped) == (0, 1)


def test_the_thread_flushes_by_itself_and_leaves_only_whole_files(tmp_path):
    writer = LogWriter(tmp_path, interval_seconds=0.01)
    writer.append(row(0))
    for _ in range(1000):
        if writer.written:
            break
        writer._stop.wait(0.01)
    assert writer.written == 1
    writer.close()
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".parquet"]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_every_dropped_row_is_told_whatever_dropped_it(tmp_path):
    """A full buffer, rows that no file can hold, and a folder that cannot be written at the end."""
    counted = []
    writer = LogWriter(tmp_path / "log", capacity=2, interval_seconds=60, count=counted.append)
    for number in range(3):
        writer.append({**row(number), "latency_ms": "long"})
    writer.flush()
    writer.append({**row(4), "user_id": "\ud800"})  # half a character, which no UTF-8 has
    writer.flush()
    (tmp_path / "log").rename(tmp_path / "elsewhere")
    (tmp_path / "log").write_text("a file where the folder should be")
    writer.append(row(3))
    writer.close()
    assert counted == [1, 2, 1, 1] and writer.dropped == 5


def test_a_row_with_other_columns_is_refused(tmp_path):
    writer = LogWriter(tmp_path, interval_seconds=60)
    with pytest.raises(AssertionError, match="latency"):
        writer.append({key: value for key, value in row(0).items() if key != "latency_ms"})
    writer.close()
