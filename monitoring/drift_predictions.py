"""Predicted probabilities of two windows, from a table of predictions by request.

Predictions usually exist for the test days alone; then the earlier half of the predicted days is the reference, and
the note says so.
"""

from pathlib import Path

import duckdb
import numpy as np

from uniscale.errors import DataError
from uniscale.samples import SampleSpec

Pair = tuple[np.ndarray, np.ndarray]


def prediction_windows(
    predictions: Path, samples: Path, spec: SampleSpec, windows: dict[str, tuple[str, str]]
) -> tuple[dict[str, Pair], str | None]:
    """Probabilities (n,) of the reference and the current window for each task predicted, and a note.

    Args:
        predictions: Parquet file or folder with `request_id` and a column a task (a number, or a list a candidate).
        samples: the samples folder, which says on which day a request was.
        spec: its spec.
        windows: `reference` and `current`, each first and last day.

    Raises:
        DataError: no such file, or none of its columns is a task.
    """
    source = Path(predictions) / "**" / "*.parquet" if Path(predictions).is_dir() else Path(predictions)
    rows = Path(samples) / "rows" / "day=*" / f"domain={spec.domains[0]}" / "*.parquet"
    if not Path(predictions).exists():
        raise DataError(f"no predictions at {predictions}: evaluate the model first, or leave predictions out")
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '1GB'; SET TimeZone = 'UTC'")
        table = f"read_parquet('{_quoted(source)}', hive_partitioning = false)"
        types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()}
        tasks = [task for task in spec.tasks if task in types]
        if "request_id" not in types or not tasks:
            raise DataError(
                f"{predictions} has columns {sorted(types)}: it needs request_id and one of {', '.join(spec.tasks)}"
            )
        connection.execute(
            f"CREATE TABLE days AS SELECT request_id, regexp_extract(filename, 'day=([0-9-]+)', 1) AS day "
            f"FROM read_parquet('{_quoted(rows)}', hive_partitioning = false, filename = true)"
        )
        chosen = ", ".join(f"p.{task}" for task in tasks)
        joined = f"SELECT d.day, {chosen} FROM {table} p JOIN days d USING (request_id)"
        connection.execute(f"CREATE VIEW predicted AS {joined}")
        days = [day for (day,) in connection.execute("SELECT DISTINCT day FROM predicted ORDER BY day").fetchall()]
        if not days:
            return {}, f"None of the requests predicted in {Path(predictions).name} is in the samples."
        note = None
        spans = [windows["reference"], windows["current"]]
        if not any(spans[0][0] <= day <= spans[0][1] for day in days):
            half = len(days) // 2
            if half == 0:
                return {}, "Predictions cover one day only, so there is nothing to compare them with."
            spans = [(days[0], days[half - 1]), (days[half], days[-1])]
            note = (
                f"Predictions of {days[half]} to {days[-1]} are compared with those of {days[0]} to {days[half - 1]}."
            )
        found = {}
        for task in tasks:
            value = f"unnest({task})" if types[task].endswith("[]") else task
            query = f"SELECT CAST({value} AS DOUBLE) AS value FROM predicted WHERE day BETWEEN ? AND ?"
            reference, current = (
                _filled(connection.execute(query, list(span)).fetchnumpy()["value"]) for span in spans
            )
            found[task] = (reference, current)
        return found, note


def _filled(values: np.ndarray) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
