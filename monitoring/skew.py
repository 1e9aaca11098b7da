"""Train-versus-serve skew: a request's features as the service had them, and as the samples have them.

The service logs the model inputs of a sample of its requests (`uniscale.serving_log.INPUTS`). Once the requests' days
are samples, ES3 has built the same features of the same requests from the logs, and each feature's share of differing
values names it: by request for user, query, context and behaviours, by item shown for items. Missing on both sides is
equal; numbers may differ by float32 rounding. Only the served domain's requests are compared.
"""

from pathlib import Path
from typing import Any

import duckdb

from monitoring.tables import scan
from uniscale.errors import DataError
from uniscale.samples import SampleSpec, row_schema
from uniscale.serving_log import INPUTS

RELATIVE = 1e-5


def feature_skew(serving_log: Path, samples: Path, warn: float) -> dict[str, Any]:
    """Share of served requests, or of their items, in which a feature differs from the samples'.

    Args:
        serving_log: folder of the serving log, with the log of inputs below it.
        samples: samples folder of the served days.
        warn: share above which a feature is skewed.

    Returns:
        `requests` and `items` compared; `features`: name, `compared` (requests or items), `share` that differs and
        `why` (null unless skewed), those of the log and the samples in common; `why_not`, null unless nothing could be
        compared.
    """
    spec, inputs = SampleSpec.load(samples), Path(serving_log) / INPUTS
    with duckdb.connect() as connection:
        try:
            log = scan(inputs, "log of served features")
        except DataError as error:
            return {"requests": 0, "items": 0, "features": [], "why_not": f"{error} (serving.input_log)"}
        known = {name for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {log}").fetchall()}
        names = [field.name for field in row_schema(spec) if field.name in known - {"request_id", "ts"}]
        of_items = {feature.name for feature in spec.select("candidate")}
        connection.execute(f"CREATE TABLE served AS SELECT DISTINCT ON (request_id) * FROM {log}")
        rows = str(Path(samples) / "rows" / "day=*" / f"domain={spec.domains[0]}" / "*.parquet").replace("'", "''")
        chosen = ", ".join(f'"{name}"' for name in ("request_id", "item", *names))
        connection.execute(
            f"CREATE TABLE offline AS SELECT {chosen} FROM read_parquet('{rows}', hive_partitioning = false) "
            "SEMI JOIN served USING (request_id)"
        )
        requests, found = _compare(connection, [name for name in names if name not in of_items], warn, "requests")
        if not requests:
            why_not = f"no request of {inputs} is in {samples}: its days may not be mature"
            return {"requests": 0, "items": 0, "features": [], "why_not": why_not}
        _by_item(connection, Path(samples), names := [name for name in names if name in of_items])
        items, more = _compare(connection, names, warn, "items", ("served_items", "offline_items"))
    return {"requests": requests, "items": items, "features": found + more, "why_not": None}


def skewed(found: dict[str, Any]) -> list[str]:
    """The skewed features of a result in words, the greatest share first."""
    worst = sorted((row for row in found["features"] if row["why"]), key=lambda row: (-row["share"], row["name"]))
    return [f"{row['name']}: {row['why']}" for row in worst]


def _compare(
    connection: duckdb.DuckDBPyConnection,
    names: list[str],
    warn: float,
    what: str,
    tables: tuple[str, str] = ("served", "offline"),
) -> tuple[int, list[dict[str, Any]]]:
    """How many rows both tables have, and each feature's share of them in which they differ."""
    served, offline = tables
    kinds = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {served}").fetchall()}
    by = "request_id" if what == "requests" else "request_id, item_id"
    differs = "".join(f", count(*) FILTER ({_differs(name, kinds[name])})" for name in names)
    total, *counts = connection.execute(
        f"SELECT count(*){differs} FROM {served} s JOIN {offline} o USING ({by})"
    ).fetchall()[0]
    found = []
    for name, count in zip(names, counts, strict=True) if total else ():
        why = f"differs in {count / total:.1%} of {total:,} {what}" if count / total > warn else None
        found.append({"name": name, "compared": total, "share": count / total, "why": why})
    return total, found


def _by_item(connection: duckdb.DuckDBPyConnection, samples: Path, names: list[str]) -> None:
    """Tables `served_items` and `offline_items`: a row for each item of a request."""
    apart = "".join(f', unnest("{name}") AS "{name}"' for name in names)
    items = str(samples / "items.parquet").replace("'", "''")
    connection.execute(
        f"CREATE TABLE served_items AS SELECT request_id, unnest(item_ids) AS item_id{apart} FROM served"
    )
    connection.execute(
        f"CREATE TABLE offline_items AS WITH apart AS (SELECT request_id, unnest(item) AS index{apart} FROM offline) "
        f"SELECT apart.* EXCLUDE (index), item_id FROM apart JOIN read_parquet('{items}') USING (index)"
    )


def _differs(name: str, kind: str) -> str:
    s, o = f's."{name}"', f'o."{name}"'
    if kind in ("FLOAT", "DOUBLE"):
        close = f"abs({s} - {o}) <= {RELATIVE} * greatest(abs({s}), abs({o}))"
        return f"({s} IS NULL) <> ({o} IS NULL) OR NOT coalesce({close}, TRUE)"
    if kind in ("FLOAT[]", "DOUBLE[]"):
        pairs = f"list_zip({s}, {o})"
        close = f"abs(p[1] - p[2]) <= {RELATIVE} * greatest(abs(p[1]), abs(p[2]))"
        far = (
            f"len(list_filter({pairs}, lambda p: (p[1] IS NULL) <> (p[2] IS NULL) OR NOT coalesce({close}, TRUE))) > 0"
        )
        return f"{s} IS DISTINCT FROM {o} AND coalesce(len({s}) <> len({o}) OR {far}, TRUE)"
    return f"{s} IS DISTINCT FROM {o}"
