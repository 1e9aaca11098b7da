"""Point-in-time retrieval for a day's samples: once a request, (item, day) and (query, day), against once a sample.

`python -m benchmarks.retrieval --samples 300000` simulates logs whose last day has about as many, builds their
features, and asks Feast for the columns of all samples both ways. The answers are compared column by column; times are
the processor's, which other work on the machine does not stretch.
"""

import argparse
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from features.build import build_features
from features.sql import text
from features.store.retrieval import item_day_features, query_day_features, request_features
from simulation.marketplace import write_logs
from uniscale.config import Config, load_config
from uniscale.logs import TIMESTAMP

PER_REQUEST = 30  # samples of a request: ten exposed and twenty unexposed
SHORT = [
    "simulation.days=8",
    "samples.warmup_days=1",
    "samples.valid_days=1",
    "samples.test_days=1",
    "samples.conversion_window_days=1",
    "features.windows_days=[1, 7]",
]
SERVICES = {"user_id": request_features, "item_id": item_day_features, "query": query_day_features}


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000, help="samples asked for, about")
    parser.add_argument("--work", type=Path, help="folder to keep logs and features in; read if they are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as scratch:
        run(options.samples, options.work or Path(scratch))


def run(count: int, work: Path) -> None:
    """Measure on the logs in `work`, made first if they are not there."""
    logs, features = work / "logs", work / "features"
    config = config_of(count)
    if not logs.exists():
        write_logs(config.simulation, config.seed, logs)
    if not features.exists():
        build_features(config, logs, features)
    asked = samples(logs, count)
    keyed = once(asked)
    answers, total = {}, {}
    for way in ("once a key", "once a sample"):
        seconds = {}
        for key, retrieve in SERVICES.items():
            rows = keyed[key][0] if way == "once a key" else asked[key]
            started = time.process_time()
            found = retrieve(features, rows).drop_columns(["row_id"])
            if way == "once a key":
                found = found.take(pa.array(keyed[key][1]))  # back beside the samples
            seconds[key] = time.process_time() - started
            answers[way, key] = found
        total[way] = sum(seconds.values())
        print(f"{way}: " + ", ".join(f"{key} {each:.1f} s" for key, each in seconds.items()), flush=True)
    equal = all(answers["once a key", key].equals(answers["once a sample", key]) for key in SERVICES)
    keys = ", ".join(f"{len(keyed[key][0]):,} by {key}" for key in SERVICES)
    print(f"{len(asked['item_id']):,} samples; {keys}; answers equal: {'yes' if equal else 'no'}")
    print(f"once a sample / once a key: {total['once a sample'] / total['once a key']:.1f}")


def config_of(count: int) -> Config:
    """The configuration of a short log whose last day holds about this many samples."""
    per_user = PER_REQUEST * load_config().simulation.search_requests_per_user_day * 1.2  # reformulations come on top
    return load_config(overrides=[f"simulation.users={max(10, round(count / per_user))}", *SHORT])


def samples(logs: Path, count: int) -> dict[str, pa.Table]:
    """The newest `count` search candidates of a log as questions, by key: row_id, key, ts, one row a candidate."""
    with duckdb.connect() as connection:
        rows = connection.sql(f"""
            SELECT user_id, query, r.ts, date_trunc('day', r.ts) AS day, unnest(item_ids[:{PER_REQUEST}]) AS item_id
            FROM read_parquet({text(logs / "requests" / "*" / "*.parquet")}) r
            JOIN read_parquet({text(logs / "candidates" / "*" / "*.parquet")}) USING (request_id)
            WHERE domain = 'search' ORDER BY r.ts DESC, request_id LIMIT {count}""").to_arrow_table()
    numbered = rows.append_column("row_id", pa.array(np.arange(len(rows))))
    stamps = {"user_id": "ts", "item_id": "day", "query": "day"}
    return {
        key: pa.table({"row_id": numbered["row_id"], key: rows[key], "ts": rows[stamp].cast(TIMESTAMP)})
        for key, stamp in stamps.items()
    }


def once(asked: dict[str, pa.Table]) -> dict[str, tuple[pa.Table, np.ndarray]]:
    """By key: the distinct (key, ts) questions, and for each sample which of them is its own."""
    result = {}
    for key, rows in asked.items():
        groups = rows.group_by([key, "ts"], use_threads=False).aggregate([("row_id", "min")])
        distinct = groups.append_column("row_id", pa.array(np.arange(len(groups)))).select(["row_id", key, "ts"])
        place = rows.join(distinct.rename_columns(["of", key, "ts"]), [key, "ts"], join_type="inner").sort_by("row_id")
        result[key] = (distinct, place["of"].to_numpy())
    return result


if __name__ == "__main__":
    main()
