"""Train-versus-serve skew: the same request's features, built offline and as the service had them.

Two comparisons. The serving log keeps a hash of every model input, so offline hashes of the same requests say how
many requests differ at all; where the values as served were kept too, each feature's share of differing values names
the feature. Missing on both sides is equal; numbers may differ by float32 rounding.
"""

from pathlib import Path
from typing import Any

import duckdb

from monitoring.outcomes import scan
from uniscale.errors import DataError

RELATIVE = 1e-5


def hash_skew(serving_log: Path, offline: Path) -> dict[str, Any]:
    """Share of served requests whose offline features hash to something else.

    Args:
        serving_log: folder of `uniscale.serving_log` rows; fallback answers, without model input, are left out.
        offline: Parquet file with `request_id` and `features_hash`, recomputed.

    Raises:
        DataError: no log, no file, or no request in common.
    """
    with duckdb.connect() as connection:
        rows, differ = connection.execute(
            "SELECT count(*), count(*) FILTER (s.features_hash <> o.features_hash) "
            f"FROM {scan(Path(serving_log), 'serving log')} s JOIN {_file(offline)} o USING (request_id) "
            "WHERE s.fallback IS NULL"
        ).fetchall()[0]
    if not rows:
        raise DataError(f"{offline} and {serving_log} have no request in common: recompute requests that were served")
    return {"requests": rows, "differing": differ, "share": differ / rows}


def feature_skew(served: Path, offline: Path, warn: float) -> list[dict[str, Any]]:
    """Share of requests in which a feature differs, one entry a feature that both files have.

    Args:
        served: Parquet file with `request_id` and a column (a value or a list) a feature, as served.
        offline: the same requests and columns, built offline.
        warn: share that counts as skew.

    Raises:
        DataError: no file, no request or no feature in common.
    """
    with duckdb.connect() as connection:
        columns = [
            {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {_file(f)}").fetchall()}
            for f in (served, offline)
        ]
        names = [name for name in columns[0] if name in columns[1] and name != "request_id"]
        if not names:
            raise DataError(f"{served} and {offline} have no feature in common")
        differs = ", ".join(f"count(*) FILTER ({_differs(name, columns[0][name])})" for name in names)
        rows, *counts = connection.execute(
            f"SELECT count(*), {differs} FROM {_file(served)} s JOIN {_file(offline)} o USING (request_id)"
        ).fetchall()[0]
    if not rows:
        raise DataError(f"{served} and {offline} have no request in common")
    found = []
    for name, count in zip(names, counts, strict=True):
        skewed = count / rows > warn
        why = f"train/serve skew: differs in {count / rows:.1%} of {rows:,} requests" if skewed else None
        found.append({"name": name, "requests": rows, "share": count / rows, "drifted": skewed, "why": why})
    return found


def _differs(name: str, kind: str) -> str:
    s, o = f's."{name}"', f'o."{name}"'
    if kind in ("FLOAT", "DOUBLE"):
        close = f"abs({s} - {o}) <= {RELATIVE} * greatest(abs({s}), abs({o}))"
        return f"({s} IS NULL) <> ({o} IS NULL) OR NOT coalesce({close} OR ({s} = {o}), TRUE)"
    if kind in ("FLOAT[]", "DOUBLE[]"):
        pairs = f"list_zip({s}, {o})"
        close = f"abs(p[1] - p[2]) <= {RELATIVE} * greatest(abs(p[1]), abs(p[2]))"
        far = (
            f"len(list_filter({pairs}, lambda p: (p[1] IS NULL) <> (p[2] IS NULL) OR NOT coalesce({close}, TRUE))) > 0"
        )
        return f"{s} IS DISTINCT FROM {o} AND coalesce(len({s}) <> len({o}) OR {far}, TRUE)"
    return f"{s} IS DISTINCT FROM {o}"


def _file(path: Path) -> str:
    if not Path(path).is_file():
        raise DataError(f"no file {path}: skew needs the features of the same requests from both sides")
    return f"read_parquet('{str(path).replace(chr(39), chr(39) * 2)}')"
