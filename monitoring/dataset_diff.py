"""What changed between two versions of a log folder: days, rows, columns, label rates, and drift of every column."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from monitoring.drift_scores import Buckets, score
from uniscale.errors import DataError
from uniscale.hashing import hash_many
from uniscale.logs import TABLES, LogDescription

Table = tuple[str, list[str], list[list[str]]]
NUMBERS = ("INTEGER", "BIGINT", "FLOAT", "DOUBLE", "SMALLINT", "TINYINT")
SAMPLE = 100_000  # rows of a table that drift is measured on
KEYS = ("request_id", "event_id", "user_id", "item_id")  # new ones are no drift


def diff(old: Path, new: Path, top: int, psi_warn: float, js_warn: float) -> dict[str, Any]:
    """Compare two log folders.

    Args:
        old, new: folders in the log contract.
        top: values of a text column that are kept by name.
        psi_warn, js_warn: scores beyond noise that count as drift, of numbers and of texts.

    Returns:
        JSON-able: `description` (what changed in it), `tables` (name: rows of both, days added and removed, columns
        added, removed and of another type), `label_rates` (task: events of its type an exposure, in both), `drift`
        (columns that drifted, with their scores).

    Raises:
        DataError: a folder is no log folder.
    """
    folders = (Path(old), Path(new))
    descriptions = [LogDescription.load(folder) for folder in folders]
    found: dict[str, Any] = {"description": _changed(*folders), "tables": {}, "label_rates": {}, "drift": []}
    with duckdb.connect() as connection:
        for name in TABLES:
            files = [_files(folder, name) for folder in folders]
            kinds = [_columns(connection, of) for of in files]
            days = [{path.parent.name.removeprefix("day=") for path in f.glob(f"{name}/day=*/*")} for f in folders]
            found["tables"][name] = {
                "rows": [_count(connection, of) for of in files],
                "days_added": sorted(days[1] - days[0]),
                "days_removed": sorted(days[0] - days[1]),
                "columns_added": sorted(set(kinds[1]) - set(kinds[0])) if kinds[0] else [],
                "columns_removed": sorted(set(kinds[0]) - set(kinds[1])) if kinds[1] else [],
                "types_changed": {
                    c: [kinds[0][c], kinds[1][c]] for c in kinds[0] if c in kinds[1] and kinds[0][c] != kinds[1][c]
                },
            }
            for column in (c for c, kind in kinds[0].items() if kinds[1].get(c) == kind and c not in KEYS):
                drifted = _drift(connection, name, column, kinds[0][column], files, top, psi_warn, js_warn)
                found["drift"] += [drifted] if drifted else []
        for task, event in descriptions[1].tasks.items():
            found["label_rates"][task] = [_rate(connection, folder, event) for folder in folders]
    return found


def tables(found: dict[str, Any]) -> list[Table]:
    """The same as titled tables for people."""
    rows = []
    for name, of in found["tables"].items():
        before, after = of["rows"]
        schema = [f"+{c}" for c in of["columns_added"]] + [f"-{c}" for c in of["columns_removed"]]
        schema += [f"{c}: {was} to {now}" for c, (was, now) in of["types_changed"].items()]
        days = [f"{sign}{len(of[key])} days" for sign, key in (("+", "days_added"), ("-", "days_removed")) if of[key]]
        rows.append([name, f"{before:,}", f"{after:,}", ", ".join(days), ", ".join(schema)])
    rates = [
        [task, *("none" if r is None else f"{r:.4%}" for r in both), _relative(*both)]
        for task, both in found["label_rates"].items()
    ]
    drift = [[f"{d['table']}.{d['column']}", f"{d['measure']} {d['score']:.3f}", d["why"]] for d in found["drift"]]
    described = [[key, json.dumps(was), json.dumps(now)] for key, (was, now) in found["description"].items()]
    return [
        ("Rows and schema", ["table", "rows before", "rows after", "days", "columns"], rows),
        ("Positive events an exposure", ["task", "before", "after", "change"], rates),
        ("Drifted columns", ["column", "score", ""], drift or [["none", "", ""]]),
        *([("Description", ["key", "before", "after"], described)] if described else []),
    ]


def _relative(old: float | None, new: float | None) -> str:
    return f"{new / old - 1:+.1%}" if old and new is not None else ""


def _changed(old: Path, new: Path) -> dict[str, list[Any]]:
    was, now = (json.loads((folder / "description.json").read_text()) for folder in (old, new))
    return {key: [was.get(key), now.get(key)] for key in sorted({*was, *now}) if was.get(key) != now.get(key)}


def _files(folder: Path, name: str) -> str | None:
    """SQL that reads a table of a log folder, None where it is not there."""
    pattern = folder / name / "*" / "*.parquet" if TABLES[name].by_day else folder / f"{name}.parquet"
    if not list(folder.glob(str(pattern.relative_to(folder)))):
        if TABLES[name].required:
            raise DataError(f"{folder} has no table {name}: give the folder of a log in the contract")
        return None
    return (
        f"read_parquet('{str(pattern).replace(chr(39), chr(39) * 2)}', union_by_name = true, hive_partitioning = false)"
    )


def _columns(connection: duckdb.DuckDBPyConnection, files: str | None) -> dict[str, str]:
    if files is None:
        return {}
    return {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {files}").fetchall()}


def _count(connection: duckdb.DuckDBPyConnection, files: str | None) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {files}").fetchall()[0][0]) if files else 0


def _rate(connection: duckdb.DuckDBPyConnection, folder: Path, event: str) -> float | None:
    shown = _count(connection, _files(folder, "exposures"))
    sql = f"SELECT count(*) FROM {_files(folder, 'events')} WHERE type = ? AND request_id IS NOT NULL"
    return int(connection.execute(sql, [event]).fetchall()[0][0]) / shown if shown else None


def _drift(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    column: str,
    kind: str,
    files: list[str | None],
    top: int,
    psi_warn: float,
    js_warn: float,
) -> dict[str, Any] | None:
    """Score of one column where it drifted, None where it did not, or is neither a number nor a text."""
    number = kind in NUMBERS
    if not number and kind != "VARCHAR":
        return None
    samples = [
        connection.execute(f'SELECT "{column}" FROM {of} USING SAMPLE {SAMPLE} ROWS (reservoir, 7)').fetchnumpy()[
            column
        ]
        for of in files
    ]
    if number:
        values = [np.ma.filled(np.ma.asarray(s, dtype=np.float64), np.nan) for s in samples]
        buckets = Buckets.of_numbers(values[0])
    else:
        values = [
            hash_many(None if x is None or x is np.ma.masked else str(x) for x in np.ma.asarray(s)) for s in samples
        ]
        buckets = Buckets.of_ids(values[0], values[1], top)
    found = score(*(buckets.counts(one) for one in values))
    if found is None:
        return None
    measured, noise, warn = (found.psi, found.psi_noise, psi_warn) if number else (found.js, found.js_noise, js_warn)
    if measured - noise <= warn or not found.beyond_chance:
        return None
    return {
        "table": table,
        "column": column,
        "measure": "PSI" if number else "JS",
        "score": measured,
        "why": f"of which noise {noise:.3f}, threshold {warn:g}",
    }
