"""ES3 on Spark against the same job in DuckDB: equal rows, the ratio of their times, and what list-wise rows save.

`python -m benchmarks.es3 --exposures 100000` simulates logs with about as many search exposures (10 of 60 candidates
a request), builds their features, runs both jobs on them and compares every column of every row. With a heap that is
too small for its sorts (`--set spark.driver_memory=512m`) Spark says how much it wrote to disk in memory's place.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import es3_duckdb
from features.build import build_features
from features.es3.build import LOCAL_JAVA, build_samples
from features.es3.flat import candidate_columns
from features.es3.inputs import like_lists
from features.es3.session import spark_session
from simulation.marketplace import write_logs
from uniscale.config import Config, load_config
from uniscale.samples import SampleSpec

MEASURED_SAMPLES = 200_000  # rows of the flat form whose bytes are measured, at most


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=100_000, help="search exposures in the simulated log, about")
    parser.add_argument("--work", type=Path, help="folder to keep logs and features in; read if they are there")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of params.yaml")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as scratch:
        run(config_of(options.exposures, options.set), options.work or Path(scratch))


def config_of(exposures: int, overrides: list[str]) -> Config:
    """The configuration of a log with about this many search exposures, by the number of its users."""
    base = load_config(overrides=overrides).simulation
    per_user = base.exposed * base.days * base.search_requests_per_user_day * 1.2  # reformulations come on top
    return load_config(overrides=[f"simulation.users={max(10, round(exposures / per_user))}", *overrides])


def run(config: Config, work: Path) -> bool:
    """Measure on the logs in `work`, made first if they are not there; returns whether both jobs gave equal rows."""
    logs, features = work / "logs", work / "features"
    if not logs.exists():
        write_logs(config.simulation, config.seed, logs)
    if not features.exists():
        build_features(config, logs, features)
    print("duckdb: started", flush=True)
    spent = -processor_seconds()
    stages = es3_duckdb.build(config, logs, features, work / "duckdb")
    spent += processor_seconds()
    print("duckdb: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items()), flush=True)
    events = work / "spark_events"
    events.mkdir(exist_ok=True)
    config = with_event_log(config, events)
    started = time.perf_counter()
    with spark_session(config.spark, LOCAL_JAVA + config.spark.driver_memory) as spark:
        start = time.perf_counter() - started
        started, before = time.perf_counter(), processor_seconds()
        manifest = build_samples(config, logs, features, work / "spark", spark)
        seconds, processor = time.perf_counter() - started, processor_seconds() - before
    rows = {name: read_rows(work / name) for name in ("spark", "duckdb")}
    equal = rows["spark"].equals(rows["duckdb"])
    exposures = sum(domain.get("exposed", 0) for split in manifest["rows"].values() for domain in split.values())
    total = sum(stages.values())
    print(f"written: {exposures:,} exposures, {len(rows['spark']):,} list-wise rows")
    if not equal:
        print("columns that differ: " + ", ".join(differing(rows["spark"], rows["duckdb"])))
    print(f"rows equal: {'yes' if equal else 'no'}")
    print(f"spark {seconds:.1f} s (JVM start {start:.1f} s apart), duckdb {total:.1f} s, ratio {seconds / total:.2f}")
    print(f"processor time: spark {processor:.1f} s, duckdb {spent:.1f} s, ratio {processor / spent:.2f}")
    moved = task_metrics(max(events.iterdir(), key=os.path.getmtime))
    print(f"of Spark's tasks, {config.spark.driver_memory}: " + ", ".join(f"{k} {v:,.1f}" for k, v in moved.items()))
    for name, ratio in bytes_ratio(rows["spark"], SampleSpec.load(work / "spark"), work).items():
        print(f"listwise/flat bytes: {ratio:.3f} ({name})")
    return equal


def with_event_log(config: Config, folder: Path) -> Config:
    """The configuration with Spark's event log, one plain file an application, in a folder."""
    log = {"enabled": "true", "dir": folder.resolve().as_uri(), "rolling.enabled": "false", "compress": "false"}
    settings = config.spark.settings | {f"spark.eventLog.{key}": value for key, value in log.items()}
    return config.model_copy(update={"spark": config.spark.model_copy(update={"settings": settings})})


def task_metrics(event_log: Path) -> dict[str, float]:
    """What an application's tasks did by Spark's own count: seconds, and MB that they shuffled, spilled and held."""
    found = {"processor seconds": 0.0, "collection seconds": 0.0, "shuffled MB": 0.0, "spilled MB (in memory)": 0.0}
    found |= {"spilled MB (on disk)": 0.0, "most MB held by one": 0.0}
    for line in event_log.read_text().splitlines():
        event = json.loads(line)
        task = event.get("Task Metrics")
        if event["Event"] != "SparkListenerTaskEnd" or not task:
            continue
        found["processor seconds"] += (task["Executor CPU Time"] + task["Executor Deserialize CPU Time"]) / 1e9
        found["collection seconds"] += task["JVM GC Time"] / 1e3
        found["shuffled MB"] += task["Shuffle Write Metrics"]["Shuffle Bytes Written"] / 1e6
        found["spilled MB (in memory)"] += task["Memory Bytes Spilled"] / 1e6
        found["spilled MB (on disk)"] += task["Disk Bytes Spilled"] / 1e6
        found["most MB held by one"] = max(found["most MB held by one"], task["Peak Execution Memory"] / 1e6)
    return found


def processor_seconds() -> float:
    """Of this process and all it started so far: what other work on the machine does not stretch as it does a clock."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # a process may end meanwhile; its parent then has its ticks
            fields = stat.read_text().rpartition(")")[2].split()
            ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    waiting, total = [os.getpid()], 0
    while waiting:
        process = waiting.pop()
        total += ticks.get(process, 0)
        waiting += children.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")


def read_rows(samples: Path) -> pa.Table:
    """All rows of a samples folder in the order of their ids, with their day and domain.

    List elements may be null in what comes back: DuckDB marks none as required, as the contract does.
    """
    parts = []
    for file in sorted(samples.glob("rows/*/*/*.parquet")):
        part = pq.ParquetFile(file).read().replace_schema_metadata(None)
        for name, folder in (("day", file.parent.parent), ("domain", file.parent)):
            value = folder.name.partition("=")[2]
            index = part.schema.get_field_index(name)
            part = part if index < 0 else part.remove_column(index)
            part = part.append_column(name, pa.array([value] * len(part), pa.string()))
        parts.append(part)
    table = pa.concat_tables(parts, promote_options="permissive")
    lists = {field.name: pa.list_(field.type.value_type) for field in table.schema if pa.types.is_list(field.type)}
    types = pa.schema([field.with_type(lists.get(field.name, field.type)) for field in table.schema])
    table = table.cast(types).combine_chunks()
    return table.select(sorted(table.column_names)).sort_by("request_id").combine_chunks()


def digest(table: pa.Table) -> str:
    """Hash of the values and types of a table, its rows in order."""
    result = hashlib.blake2b(digest_size=8)
    for name in table.column_names:
        result.update(f"{name}: {table.schema.field(name).type}".encode())
        for start in range(0, len(table), 10_000):
            result.update(repr(table[name].slice(start, 10_000).to_pylist()).encode())
    return result.hexdigest()


def differing(one: pa.Table, other: pa.Table) -> list[str]:
    """Columns of `one` that `other` lacks or has with other types or values."""
    return [n for n in one.column_names if n not in other.column_names or not one[n].equals(other[n])]


def flattened(rows: pa.Table, spec: SampleSpec) -> pa.Table:
    """A row a candidate: request-level columns repeated, behaviours with them."""
    lists = rows["item"].combine_chunks()
    request = np.repeat(np.arange(len(rows)), lists.value_lengths().to_numpy())
    listed = set(candidate_columns(spec))
    return pa.table(
        {
            name: rows[name].combine_chunks().flatten() if name in listed else rows[name].take(pa.array(request))
            for name in rows.column_names
        }
    ).combine_chunks()


def bytes_ratio(rows: pa.Table, spec: SampleSpec, folder: Path) -> dict[str, float]:
    """Bytes of the list-wise form over those of the flat one: in memory, and as zstd Parquet in both row orders."""
    samples = like_lists(rows["item"].combine_chunks(), rows["item"].combine_chunks().flatten()).value_lengths()
    count = int(np.searchsorted(np.cumsum(samples.to_numpy()), MEASURED_SAMPLES)) or len(rows)
    listed = rows.sort_by([("day", "ascending"), ("domain", "ascending"), ("ts", "ascending")]).slice(0, count)
    flat = flattened(listed, spec)
    ratios = {"in memory, Arrow": _memory(listed) / _memory(flat)}
    for name in ("shuffled", "sorted"):
        sizes = []
        for table in (listed, flat):
            order = np.random.default_rng(0).permutation(len(table)) if name == "shuffled" else np.arange(len(table))
            pq.write_table(table.take(pa.array(order)), folder / "measured.parquet", compression="zstd")
            sizes.append((folder / "measured.parquet").stat().st_size)
        ratios[f"zstd Parquet, {name}"] = sizes[0] / sizes[1]
    return ratios


def _memory(table: pa.Table) -> int:
    return int(table.combine_chunks().nbytes)


if __name__ == "__main__":
    main()
