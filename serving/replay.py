"""Replay: the test requests of real logs through the live service, where no users can answer it.

The service ranks what was shown, as of the request's time, and its order is judged by what the users of the log did.
That is a ranking metric, not an experiment: the users saw another order. Where the log showed items in random order,
clicks under the served order are estimated too (`serving.off_policy`).
"""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.catalogue import context_names
from models.metrics import gauc, hit_rate, ndcg
from serving.off_policy import ASSUMPTIONS, item_position_estimate
from serving.smoke import ask, client
from uniscale.artifacts import atomic_folder, read_json, write_json
from uniscale.config import Config
from uniscale.errors import DataError
from uniscale.hashing import unit_interval
from uniscale.logs import LogDescription
from uniscale.progress import Progress
from uniscale.samples import LabelSource, SampleSpec, Sampling

CONNECTIONS = 2
RANDOM = {"1", "1.0", "true"}  # how a set flag may be written in a log
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """The exposed candidates of R test requests, N in all, in the order of the samples."""

    requests: list[dict[str, Any]]  # request_id, user_id, query, ts, scenario
    item_ids: list[str]  # (N,)
    offsets: NDArray[np.int64]  # (R+1,)
    position: NDArray[np.int64]  # (N,) as logged, 1-based
    labels: dict[str, NDArray[np.int64]]  # task -> (N,), in-domain labels only


def replay(config: Config, logs: Path, samples: Path, url: str, out: Path) -> dict[str, Any]:
    """Send up to `serving.replay_requests` test requests to the service and judge the order it answers.

    Writes `replay.json` and `ranks.parquet` (request_id, item_id, logged position, served rank, variant, labels).

    Args:
        config: section serving.
        logs: clean logs; their description says whether some order was random, and names the context columns.
        samples: the samples folder; its test split is what the models have not seen.
        url: of the running service.
        out: folder to write.

    Returns:
        What `replay.json` holds: `online_ab` (why there is none), requests, candidates, fallbacks, `metrics` by
        variant and task, `off_policy` (estimates by variant with their assumptions, or why there are none), `limits`.

    Raises:
        DataError: the samples have no test rows.
        ServingError: the service does not answer.
    """
    description = LogDescription.load(Path(logs))
    shown = read_shown(Path(samples), config.serving.replay_requests)
    context = _context(Path(logs), description, shown)
    answers = list(_answers(url, shown, context, context_names(description)))
    rank = _ranks(shown, answers)
    variants = np.array([answer["variant"] for answer in answers])
    report = {
        "online_ab": f"no online A/B possible: the users of {description.name} cannot answer a live service",
        "requests": len(answers),
        "candidates": int(shown.offsets[-1]),
        "fallbacks": sum(answer["fallback"] is not None for answer in answers),
        "unknown_items": sum(len(answer["unknown_items"]) for answer in answers),
        "metrics": _by_variant(variants, lambda chosen: _metrics(shown, rank, chosen)),
        "off_policy": _off_policy(description, context, shown, rank, variants),
        "limits": [
            "the users saw the logged order, so labels of items shown low are missing clicks, not dislikes",
            "statistics and behaviours are those of the feature store at the start of the test days, so they know "
            "less than a request on a later day did; item attributes are the newest",
            *description.limits,
        ],
    }
    with atomic_folder(Path(out)) as folder:
        write_json(folder / "replay.json", report)
        pq.write_table(_table(shown, rank, variants), folder / "ranks.parquet", compression="zstd")
    return report


def read_shown(samples: Path, requests: int) -> Shown:
    """Exposed candidates of target-domain test requests: a fixed choice of at most `requests`, by hash of their id.

    Raises:
        DataError: the test split has no such row.
    """
    spec = SampleSpec.load(samples)
    first, last = read_json(samples / "manifest.json")["splits"]["test"]
    files = [
        path
        for path in sorted((samples / "rows").glob(f"day=*/domain={spec.domains[0]}/*.parquet"))
        if first <= path.parent.parent.name.removeprefix("day=") <= last
    ]
    rows = _chosen(files, spec, requests)
    items = pq.ParquetFile(samples / "items.parquet").read(columns=["index", "item_id"])
    id_of = dict(zip(items["index"].to_pylist(), items["item_id"].to_pylist(), strict=True))
    found: list[dict[str, Any]] = []
    item_ids: list[str] = []
    position: list[int] = []
    labels: dict[str, list[int]] = {task: [] for task in spec.tasks}
    offsets = [0]
    for row in rows:
        exposed = [i for i, kind in enumerate(row["sampling"]) if kind == Sampling.EXPOSED and row["item"][i] in id_of]
        if not exposed:
            continue
        found.append({key: row[key] for key in ("request_id", "user_id", "query", "ts")})
        found[-1]["scenario"] = [spec.scenarios[place] for place in row["scenarios"]]
        item_ids += [id_of[row["item"][i]] for i in exposed]
        position += [row["position"][i] for i in exposed]
        offsets.append(len(item_ids))
        for task in spec.tasks:
            in_domain = [row[f"{task}_source"][i] == LabelSource.IN_DOMAIN for i in exposed]
            labels[task] += [row[task][i] * own for i, own in zip(exposed, in_domain, strict=True)]
    if not found:
        raise DataError(f"{samples} has no exposed {spec.domains[0]} rows from {first} to {last}: bring more days")
    return Shown(
        found,
        item_ids,
        np.array(offsets),
        np.array(position, np.int64),
        {task: np.array(values, np.int64) for task, values in labels.items()},
    )


def _chosen(files: list[Path], spec: SampleSpec, requests: int) -> list[dict[str, Any]]:
    ids = [
        name for path in files for name in pq.ParquetFile(path).read(columns=["request_id"])["request_id"].to_pylist()
    ]
    wanted = pa.array(sorted(ids, key=unit_interval)[:requests], pa.string())
    names = ["request_id", "user_id", "query", "ts", "scenarios", "item", "sampling", "position"]
    names += [column for task in spec.tasks for column in (task, f"{task}_source")]
    tables = (pq.ParquetFile(path).read(columns=names) for path in files)
    return [row for table in tables for row in table.filter(pc.is_in(table["request_id"], wanted)).to_pylist()]


def _context(logs: Path, description: LogDescription, shown: Shown) -> dict[str, dict[str, Any]]:
    """Request id -> its context columns, as logged."""
    wanted = pa.array([request["request_id"] for request in shown.requests])
    found: dict[str, dict[str, Any]] = {}
    days = {f"{request['ts'].astimezone(UTC):%Y-%m-%d}" for request in shown.requests}
    for path in (path for day in sorted(days) for path in sorted((logs / "requests" / f"day={day}").glob("*.parquet"))):
        table = pq.ParquetFile(path).read(columns=["request_id", *description.context])
        for row in table.filter(pc.is_in(table["request_id"], wanted)).to_pylist():
            found[row.pop("request_id")] = row
    return found


def _answers(
    url: str, shown: Shown, context: dict[str, dict[str, Any]], sent: Collection[str]
) -> Iterator[dict[str, Any]]:
    progress = Progress("replay", len(shown.requests), "requests")

    def body(place: int) -> dict[str, Any]:
        request = shown.requests[place]
        ts: datetime = request["ts"]
        return {
            **request,
            "ts": ts.astimezone(UTC).isoformat(),
            "context": {name: value for name, value in context.get(request["request_id"], {}).items() if name in sent},
            "item_ids": shown.item_ids[shown.offsets[place] : shown.offsets[place + 1]],
        }

    with client(url) as http, ThreadPoolExecutor(CONNECTIONS) as threads:
        for answer in threads.map(lambda place: ask(http, body(place)), range(len(shown.requests))):
            progress.advance()
            yield answer
    progress.finish()


def _ranks(shown: Shown, answers: list[dict[str, Any]]) -> NDArray[np.int64]:
    """Served rank of every shown item, (N,), 1-based."""
    rank = np.zeros(len(shown.item_ids), np.int64)
    for place, answer in enumerate(answers):
        served = {item["item_id"]: number for number, item in enumerate(answer["items"], 1)}
        start, end = shown.offsets[place], shown.offsets[place + 1]
        rank[start:end] = [served[item_id] for item_id in shown.item_ids[start:end]]
    return rank


def _by_variant(variants: NDArray[np.str_], measure: Callable[[NDArray[np.bool_]], T]) -> dict[str, T]:
    """A measure over all requests and over each variant's; users are hashed, so variants see different requests."""
    return {"all": measure(np.ones(len(variants), bool))} | {
        str(name): measure(variants == name) for name in np.unique(variants)
    }


def _metrics(shown: Shown, rank: NDArray[np.int64], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Per task: AUC within requests weighted by impressions, NDCG@10, HR@5 of the served order; None if undefined."""
    request = np.repeat(np.arange(len(chosen)), np.diff(shown.offsets))
    kept = chosen[request]
    group = np.unique(request[kept], return_inverse=True)[1]
    score = -rank[kept].astype(np.float64)
    measured: dict[str, Any] = {"requests": int(chosen.sum())}
    for task, labels in shown.labels.items():
        y = labels[kept]
        gains = ndcg(y, score, group, k=10)
        measured[task] = {
            "positives": int(y.sum()),
            "request_auc": _number(gauc(y, score, group)),
            "ndcg@10": _number(float(np.nanmean(gains)) if np.isfinite(gains).any() else float("nan")),
            "hr@5": _number(hit_rate(y, score, group, k=5).value),
        }
    return measured


def _off_policy(
    description: LogDescription,
    context: dict[str, dict[str, Any]],
    shown: Shown,
    rank: NDArray[np.int64],
    variants: NDArray[np.str_],
) -> dict[str, Any]:
    column = description.randomised_column
    if column is None:
        return {"estimates": None, "why_not": f"{description.name} does not say where its order was random"}
    flags = [context.get(request["request_id"], {}).get(column) for request in shown.requests]
    random = np.array([str(flag).lower() in RANDOM for flag in flags])
    task = next(iter(shown.labels))

    def estimate(chosen: NDArray[np.bool_]) -> dict[str, Any] | None:
        places = np.flatnonzero(chosen & random)
        offsets = np.concatenate([[0], np.cumsum(np.diff(shown.offsets)[places])]).astype(np.int64)
        items = np.flatnonzero(np.isin(np.repeat(np.arange(len(random)), np.diff(shown.offsets)), places))
        labels = shown.labels[task][items]
        found = item_position_estimate(offsets, shown.position[items], rank[items], labels)
        return None if found is None else asdict(found)

    estimates = _by_variant(variants, estimate)
    if estimates["all"] is None:
        return {"estimates": None, "why_not": f"only {int(random.sum())} of the requests have {column} set"}
    return {"task": task, "requests": int(random.sum()), "estimates": estimates, "assumptions": list(ASSUMPTIONS)}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _table(shown: Shown, rank: NDArray[np.int64], variants: NDArray[np.str_]) -> pa.Table:
    request = np.repeat(np.arange(len(variants)), np.diff(shown.offsets))
    ids = pa.array([row["request_id"] for row in shown.requests])
    return pa.table(
        {
            "request_id": ids.take(pa.array(request)),
            "item_id": shown.item_ids,
            "position": shown.position,
            "rank": rank,
            "variant": pa.array(variants.tolist(), pa.string()).take(pa.array(request)),
            **shown.labels,
        }
    )
