"""What serving costs: HTTP and features beside the model, Feast look-ups, reloads of the items, float16 on disk.

`python -m benchmarks.serving` simulates a small market, builds its features, packages two untrained models (which cost
what trained ones do) and starts the service; it prints one line of JSON a measurement. Milliseconds depend on the
machine and on who else uses it; the shares and ratios are within one run. `--deployment` takes a packaged one instead,
whose trained models make the float16 row mean something. OneTrans at its paper's size, for users with long histories:

    python -m benchmarks.serving --requests 60 --behaviours 512 --set features.max_behaviours=512 \
        --set model.champion=onetrans --set model.name=onetrans --set model.onetrans.dim=256 \
        --set model.onetrans.layers=6 --set model.onetrans.heads=4
"""

import argparse
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.stats import spearmanr

from features.build import build_features
from features.store.online import push_behaviours
from features.store.repo.definitions import SERVICES
from models.checkpoint import load_model, save_model
from models.zoo import build_model
from serving.deploy import package
from serving.deployment import Deployment, Examples
from serving.engine import Ask
from serving.items import RELOAD_SHARE
from serving.load import TIMEOUT_SECONDS
from serving.loader import load_ranker
from serving.online_features import OnlineFeatures
from serving.probe import probe_batch
from serving.process import running
from simulation.marketplace import write_logs
from uniscale.artifacts import read_json
from uniscale.assignment import assign
from uniscale.config import Config, load_config
from uniscale.samples import SampleSpec

SETTINGS = [
    "simulation.users=300",
    "simulation.days=20",
    "samples.warmup_days=2",
    "features.windows_days=[1, 2]",
    "serving.deadline_ms=20000",
]
WARM_UP = 20
LOOK_UP_ITEMS = 500
READ_BYTES = 1 << 18
RELOADS = 5


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployment", type=Path, help="a packaged deployment; made from a simulation if absent")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--behaviours", type=int, default=0, help="random ones given to every user asked for")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of params.yaml")
    options = parser.parse_args()
    config = load_config(overrides=[*SETTINGS, *options.set])
    with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as scratch:
        deployment = options.deployment or _packaged(config, Path(scratch))
        if options.behaviours:
            _give_behaviours(deployment, options.behaviours)
        with running(config, deployment, Path(scratch) / "log") as url:
            measured = [
                *overhead(url, deployment, options.requests, options.candidates),
                worker_time(url, deployment, options.requests, options.candidates),
            ]
        measured += [*look_ups(deployment, options.requests), *beside_reloads(deployment, options.candidates)]
        for row in [*measured, *half_precision(deployment)]:
            print(json.dumps(row), flush=True)


def overhead(url: str, deployment: Path, requests: int, candidates: int) -> Iterator[dict[str, Any]]:
    """By model, the share of a request's median that is not the model: one client, one request at a time.

    Answers say what their stages took (`Server-Timing`). The client writes a request at once and reads until it has the
    answer, as an HTTP client's own work is none of the service. Users' variants decide whose a request is: a median
    over two models would be that of neither.
    """
    bodies = _bodies(deployment, requests + WARM_UP, candidates)
    spent: dict[str, list[dict[str, float]]] = {}
    with closing(_connected(url)) as connection:
        for number, body in enumerate(bodies):
            content = json.dumps(body).encode()
            started = time.perf_counter()
            headers, answer = _rank(connection, content)
            milliseconds = 1000 * (time.perf_counter() - started)
            if number >= WARM_UP:
                stages = {name: float(text) for name, text in re.findall(r"(\w+);dur=([\d.]+)", headers)}
                spent.setdefault(json.loads(answer)["version"], []).append({**stages, "client": milliseconds})
    for version, each in sorted(spent.items()):
        p50 = {name: float(np.median([one[name] for one in each])) for name in each[0]}
        yield {
            "measure": "overhead",
            "model": version,
            "requests": len(each),
            "candidates": candidates,
            "p50_ms": p50,
            "share_of_p50_not_model": 1 - p50["model"] / p50["client"],
            "share_of_p50_not_model_inside_the_service": 1 - p50["model"] / p50["total"],
        }


def worker_time(url: str, deployment: Path, requests: int, candidates: int) -> dict[str, Any]:
    """Share of the worker's processor time that is not the model: other work on the machine does not lengthen it.

    The model's part is the scoring thread's own time for the same requests, in this process.
    """
    bodies = _bodies(deployment, requests + WARM_UP, candidates)
    with closing(_connected(url)) as connection:
        pid = httpx.get(f"{url}/healthz", timeout=TIMEOUT_SECONDS).json()["pid"]
        before = 0.0
        for number, body in enumerate(bodies):
            if number == WARM_UP:
                before = _processor_seconds(pid)
            _rank(connection, json.dumps(body).encode())
        worker = 1000 * (_processor_seconds(pid) - before) / requests
    features = deployment / "features"
    with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as scratch:
        ranker = load_ranker(deployment, features, Path(scratch), None)
        store = OnlineFeatures(features, ranker.engine.spec, ranker.deployment.services)
        lineup, spent = ranker.switch.current, []
        for body in bodies:
            ask = Ask(**body, scenario=[], context={}, ts=datetime.now(UTC))
            user = store.read(ask.user_id, ask.query, ask.ts.timestamp())
            prepared = ranker.engine.prepare(ask, user, ranker.snapshot.get())
            variant = assign(ask.user_id, ranker.deployment.salt, lineup.routing.weights)
            started = time.thread_time()
            ranker.engine.rank(lineup.models[lineup.routing.versions[variant]], prepared)
            spent.append(1000 * (time.thread_time() - started))
        ranker.close()
    model = float(np.mean(spent[WARM_UP:]))
    return {
        "measure": "worker's processor time",
        "models": sorted(lineup.routing.versions.values()),
        "worker_ms": worker,
        "model_ms": model,
        "share_not_model": 1 - model / worker,
    }


def look_ups(deployment: Path, requests: int) -> Iterator[dict[str, Any]]:
    """Feast's stock path for one user and for 500 items, and the item snapshot's gather in its place."""
    features = deployment / "features"
    spec = SampleSpec.load(features)
    store, examples = OnlineFeatures(features, spec, [*SERVICES]), Examples.load(deployment)
    items = pq.ParquetFile(features / "items.parquet").read(columns=["item_id"])["item_id"].to_pylist()
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(len(items), len(spec.select("candidate")))).astype(np.float32)
    chosen = [rng.choice(len(items), min(LOOK_UP_ITEMS, len(items)), replace=False) for _ in range(requests)]
    now = datetime.now(UTC).timestamp()
    users = [examples.users[number % len(examples.users)] for number in range(requests)]
    read = [_milliseconds(lambda user=user: store.read(user, None, now)) for user in users]
    stock = [
        _milliseconds(lambda places=places: store.items([items[place] for place in places]))
        for places in chosen[: max(10, requests // 10)]
    ]
    gather = [_milliseconds(lambda places=places: columns[places]) for places in chosen]
    together = [one + two for one, two in zip(read, gather, strict=True)]
    for name, values in (
        ("1 user, Feast", read),
        (f"{len(chosen[0])} items, Feast", stock),
        (f"{len(chosen[0])} items, snapshot", gather),
        (f"1 user + {len(chosen[0])} items, as served", together),
    ):
        p50, p99 = (float(np.percentile(values, p)) for p in (50, 99))
        yield {"measure": "look-up", "what": name, "n": len(values), "p50_ms": p50, "p99_ms": p99}


def beside_reloads(deployment: Path, candidates: int) -> Iterator[dict[str, Any]]:
    """Requests alone, and beside reloads of the item snapshot that work all the time or a share of it, in turns."""
    bodies = _bodies(deployment, WARM_UP, candidates)
    spent: dict[str, list[float]] = {"alone": [], "a reload without pauses": [], "a reload": []}
    with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as scratch:
        ranker = load_ranker(deployment, deployment / "features", Path(scratch), None)
        store = OnlineFeatures(deployment / "features", ranker.engine.spec, ranker.deployment.services)
        model = ranker.switch.current.models[ranker.switch.current.routing.versions["candidate"]]
        item_ids = list(ranker.snapshot.get().place_of)

        def answer(body: dict[str, Any]) -> None:
            ask = Ask(**body, scenario=[], context={}, ts=datetime.now(UTC))
            user = store.read(ask.user_id, ask.query, ask.ts.timestamp())
            ranker.engine.rank(model, ranker.engine.prepare(ask, user, ranker.snapshot.get()))

        for _ in range(RELOADS):
            spent["alone"] += [_milliseconds(lambda body=body: answer(body)) for body in bodies]
            for name, share in (("a reload without pauses", 1.0), ("a reload", RELOAD_SHARE)):
                reload = threading.Thread(target=store.items, args=(item_ids, share))
                reload.start()
                while reload.is_alive():
                    body = bodies[len(spent[name]) % len(bodies)]
                    spent[name].append(_milliseconds(lambda body=body: answer(body)))
        ranker.close()
    for name, values in spent.items():
        p50, p95 = (float(np.percentile(values, p)) for p in (50, 95))
        yield {
            "measure": "beside reloads",
            "what": name,
            "items": len(item_ids),
            "n": len(values),
            "p50_ms": p50,
            "p95_ms": p95,
        }


def half_precision(deployment: Path) -> Iterator[dict[str, Any]]:
    """Scores of the float16 export against the float32 record, on the probe's requests."""
    for version in sorted(set(Deployment.load(deployment).versions.values())):
        folder = deployment / "models" / version
        model = load_model(folder).search_export()
        half = model.score(probe_batch(model.spec))[:, 0]
        full = torch.tensor(read_json(folder / "probe.json")["float32"])[:, 0]
        yield {
            "measure": "float16 on disk",
            "model": model.name,
            "max_difference": float((half - full).abs().max()),
            "rank_correlation": float(spearmanr(half.numpy(), full.numpy()).statistic),
        }


def _bodies(deployment: Path, count: int, candidates: int) -> list[dict[str, Any]]:
    examples, rng = Examples.load(deployment), np.random.default_rng(0)
    items = pq.ParquetFile(deployment / "features" / "items.parquet").read(columns=["item_id"])["item_id"].to_pylist()
    return [
        {
            "user_id": examples.users[number % len(examples.users)],
            "query": examples.queries[number % len(examples.queries)] if examples.queries else None,
            "item_ids": [items[place] for place in rng.choice(len(items), candidates, replace=False)],
        }
        for number in range(count)
    ]


def _give_behaviours(deployment: Path, count: int) -> None:
    """Push random clicks of the last days to the deployment's online store, before the service copies it."""
    users, rng = Examples.load(deployment).users, np.random.default_rng(1)
    items = pq.ParquetFile(deployment / "features" / "items.parquet").read(columns=["item_id"])["item_id"].to_pylist()
    now = datetime.now(UTC)
    events = {
        "user_id": [user for user in users for _ in range(count)],
        "item_id": [items[place] for place in rng.integers(0, len(items), len(users) * count)],
        "ts": [now - timedelta(minutes=number + 1) for _ in users for number in range(count)],
        "type": ["click"] * len(users) * count,
    }
    push_behaviours(deployment / "features", pa.table(events))


def _processor_seconds(pid: int) -> float:
    """Of a process so far, its threads' together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _connected(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS)


def _rank(connection: socket.socket, content: bytes) -> tuple[str, bytes]:
    """Head and body of the answer."""
    head = b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(content) + content)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _received(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), received
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
    while len(body) < length:
        body += _received(connection)
    return head.decode("latin-1"), body


def _received(connection: socket.socket) -> bytes:
    part = connection.recv(READ_BYTES)
    assert part, "the service hung up within an answer"
    return part


def _milliseconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def _packaged(config: Config, folder: Path) -> Path:
    write_logs(config.simulation, config.seed, folder / "logs")
    build_features(config, folder / "logs", folder / "features")
    spec = SampleSpec.load(folder / "features")
    variants = {name: folder / name for name in config.experiment.weights}
    versions = {}
    for variant, name in zip(variants, (config.model.champion, config.model.name), strict=True):
        save_model(build_model(name, spec, config.model, config.seed), variants[variant], config.seed)
        versions[variant] = name
    package(config, folder / "features", variants, versions, folder / "deployment")
    return folder / "deployment"


if __name__ == "__main__":
    main()
