"""A serving log and log tables of one experiment with a given true lift; users differ, so requests are clustered."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniscale.assignment import assign
from uniscale.config import load_config
from uniscale.logs import TABLES, LogDescription
from uniscale.sections import ExperimentConfig
from uniscale.serving_log import SCHEMA

START = datetime(2026, 3, 2, tzinfo=UTC)
DESCRIPTION = LogDescription(
    name="experiment",
    domains=("search", "recommendation"),
    scenarios=("keyword", "category"),
    tasks={"click": "click", "conversion": "purchase"},
)


def config(**changes) -> ExperimentConfig:
    return load_config().experiment.model_copy(update={"days": 3, **changes})


def write_experiment(
    folder: Path,
    users: int = 600,
    days: int = 3,
    lift: float | list[float] = 0.0,
    latency_lift: float = 0.0,
    requests_per_day: float = 1.5,
    exposed: int = 8,
    seed: int = 0,
    versions: tuple[str, str] = ("1", "2"),
    settings: ExperimentConfig | None = None,
    before_days: int = 0,
) -> dict[str, Path]:
    """Write serving/, logs/ and, with `before_days`, before/; the candidate's click probability is (1 + lift) times
    (of each day, where a list is given)."""
    rng = np.random.default_rng(seed)
    settings = settings or config()
    names = [f"u{seed}-{n}" for n in range(users)]
    taste = rng.beta(1.2, 6.0, users)  # a user's click probability: the reason for clustering
    variant = np.array([assign(name, settings.salt, settings.weights) for name in names])
    folder = Path(folder)
    served, logs = [], _empty()
    for day in range(days):
        effect = 1 + (lift[day] if isinstance(lift, list) else lift)
        _day(rng, names, taste * np.where(variant == "candidate", effect, 1.0), day, requests_per_day, exposed, logs)
    for request in logs["requests"]:
        arm = variant[names.index(request["user_id"])] if users < 50 else variant[int(request["user_id"].split("-")[1])]
        slow = 1 + latency_lift if arm == "candidate" else 1.0
        served.append(
            {
                "request_id": request["request_id"],
                "ts": request["ts"],
                "served_at": request["ts"],
                "user_id": request["user_id"],
                "query": request["query"],
                "scenario": request["scenario"],
                "variant": str(arm),
                "version": versions[int(arm == "candidate")],
                "item_ids": [f"i{n}" for n in range(exposed)],
                "scores": [0.0] * exposed,
                "candidates": exposed,
                "latency_ms": float(rng.lognormal(2.5, 0.4) * slow),
                "features_hash": 0,
            }
        )
    paths = {"serving_log": folder / "serving", "logs": folder / "logs"}
    _write(paths["serving_log"], served, SCHEMA)
    _write_logs(paths["logs"], logs)
    if before_days:
        earlier = _empty()
        for day in range(-before_days, 0):
            _day(rng, names, taste, day, requests_per_day, exposed, earlier)
        paths["pre_period"] = folder / "before"
        _write_logs(paths["pre_period"], earlier)
    return paths


def rewrite(folder: Path, change) -> None:
    """Apply `change(list of rows) -> list of rows` to every Parquet file below a folder."""
    for file in sorted(folder.glob("day=*/*.parquet")):
        table = pq.read_table(file, partitioning=None)
        rows = change(table.to_pylist())
        pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def _empty():
    return {"requests": [], "exposures": [], "events": []}


def _day(rng, names, probability, day, requests_per_day, exposed, logs):
    for user, count in enumerate(rng.poisson(requests_per_day, len(names))):
        for number in range(count):
            request, ts = (
                f"r{day}-{names[user]}-{number}",
                START + timedelta(days=day, seconds=int(rng.integers(0, 86000))),
            )
            logs["requests"].append(
                {
                    "request_id": request,
                    "domain": "search",
                    "scenario": [["keyword", "category"][user % 2]],
                    "user_id": names[user],
                    "ts": ts,
                    "query": f"q{int(rng.integers(0, 30))}",
                }
            )
            for position in range(exposed):
                seen = {"request_id": request, "item_id": f"i{position}", "position": position + 1, "ts": ts}
                logs["exposures"].append(seen)
            for position in np.flatnonzero(rng.random(exposed) < probability[user]):
                later = ts + timedelta(seconds=int(rng.integers(1, 200)))
                _event(logs, request, names[user], int(position), later, "click", None)
                if rng.random() < 0.2:
                    _event(logs, request, names[user], int(position), later, "purchase", float(rng.lognormal(3, 0.5)))


def _event(logs, request, user, item, ts, kind, amount):
    logs["events"].append(
        {
            "event_id": f"{request}-{item}-{kind}",
            "user_id": user,
            "item_id": f"i{item}",
            "ts": ts,
            "domain": "search",
            "type": kind,
            "request_id": request,
            "amount": amount,
        }
    )


def _write_logs(folder, logs):
    for name, rows in logs.items():
        schema = pa.schema([(column.name, column.type) for column in TABLES[name].columns])
        _write(folder / name, rows, schema)
    DESCRIPTION.save(folder)


def _write(folder, rows, schema):
    by_day = {}
    for row in rows:
        by_day.setdefault(f"{row['ts']:%Y-%m-%d}", []).append(row)
    for day, part in by_day.items():
        (folder / f"day={day}").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part, schema), folder / f"day={day}" / "part-0.parquet")
