"""Simulated users answer a live ranker: the days after the logs, with a service in production's place.

Users, tastes, needs, queries and lists are those of the marketplace. What is shown is the ranker's; examination,
clicks and purchases follow the same equations as in the logs, with randomness keyed by (request, item): two rankers
that show an item at the same place of the same request get the same click, and differ by their ranking alone.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulation import tables
from simulation.client import HttpRanker, http_ranker
from simulation.followups import Events, join
from simulation.marketplace import Pending, Round, react, write_a_day
from simulation.population import DEVICES
from simulation.queries import SEARCH_SCENARIOS, texts
from simulation.retrieval import Retrieval
from simulation.search import Searches, reformulations, retrieve
from simulation.traffic import MAX_ROUNDS, day_of_requests
from simulation.world import SEARCH, World, build_world
from uniscale.artifacts import atomic_folder
from uniscale.config import Config
from uniscale.errors import DataError, ServingError
from uniscale.progress import Progress

__all__ = ["HttpRanker", "http_ranker", "run_live"]

Ranker = Callable[[dict[str, Any]], dict[str, Any]]
PARTS_OF_A_DAY = 4  # after each, and after each round of reformulations, the stream brings what happened
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def run_live(
    config: Config,
    logs: Path,
    rank: Ranker,
    out: Path,
    feed: Callable[[pa.Table], object] | None = None,
    concurrency: int = 2,
) -> dict[str, Any]:
    """Let the users of `logs` search for `config.experiment.days` more days and show them what `rank` answers.

    Args:
        config: that of the logs; the marketplace is rebuilt from its simulation section and seed.
        logs: the simulated logs, to make sure that they are of the same marketplace.
        rank: called with {"request_id", "user_id", "query", "scenario": [...], "context": {"device": ...},
            "item_ids": [...], "top_k", "ts"} (ts in ISO 8601, UTC); answers {"variant", "items": [{"item_id", ...},
            ...], ...} with at most `top_k` of the item ids, best first.
        out: log folder to write, in the contract, with truth/; exposures hold what was answered, in its order.
        feed: the stream of behaviours; called many times a day with the events that became known since (the columns
            of the contract), some of which lie later on the same day.
        concurrency: requests in flight; outcomes do not depend on it or on the order of the answers.

    Returns:
        Rows by table, "events.click" and the like, "failed" and "failures" (the ten commonest reasons: count), and
        "variants" (variant: requests, clicks, users).

    Raises:
        DataError: the logs are not those of this configuration and seed.
        ServingError: not one request succeeded.
    """
    world = build_world(config.simulation, config.seed)
    _require_same_marketplace(world, Path(logs))
    retrieval, pending, tally = Retrieval(world), Pending(world), _Tally()
    days = range(config.simulation.days, config.simulation.days + config.experiment.days)
    counts: dict[str, Any] = {}
    with atomic_folder(Path(out)) as folder, ThreadPoolExecutor(concurrency) as threads:
        tables.describe().save(folder)
        pq.write_table(tables.users_table(world), folder / "users.parquet", compression="zstd")
        pq.write_table(tables.items_table(world), folder / "items.parquet", compression="zstd")
        for day, tastes in world.tastes(days):
            arrivals = day_of_requests(world, tastes, day, (config.experiment.requests_per_user_day, 0.0, 0.0))[SEARCH]
            progress = Progress(f"live {world.date(day)}", len(arrivals), "requests")
            rounds: list[Round] = []
            events: list[Events] = []
            for part in np.array_split(np.arange(len(arrivals)), PARTS_OF_A_DAY):
                requests = arrivals.take(part)
                for _ in range(MAX_ROUNDS):
                    searches = retrieve(world, tastes, retrieval, requests)
                    payloads = _payloads(world, searches)
                    shown = np.full((len(payloads), config.simulation.exposed), -1)
                    answers = threads.map(lambda payload: _ask(rank, payload), payloads)
                    variants: list[str | None] = []
                    for row, (columns, variant, reason) in enumerate(answers):
                        shown[row, : len(columns)] = columns
                        variants.append(variant)
                        tally.note(reason)
                        progress.advance()
                    rounds.append(react(world, searches, shown, pending))
                    tally.count(requests.user, variants, rounds[-1].clicked.sum(1))
                    if tally.asked and not tally.variants:
                        reason, _ = tally.failures.most_common(1)[0]
                        raise ServingError(f"all of the first {tally.asked} requests failed, mostly with: {reason}")
                    events.append(pending.due(day))
                    if feed is not None and len(events[-1]):
                        feed(tables.events_table(world, events[-1], day))
                    requests = reformulations(world, requests, rounds[-1].satisfied)
                    progress.total += len(requests)
            progress.finish()
            write_a_day(world, folder, day, rounds, [], join(events), counts)
    return counts | tally.summary()


class _Tally:
    """Requests by outcome and variant."""

    def __init__(self) -> None:
        self.asked = 0
        self.failures: Counter[str] = Counter()
        self.variants: dict[str, dict[str, int]] = {}
        self.users: dict[str, set[int]] = {}

    def note(self, reason: str | None) -> None:
        self.asked += 1
        if reason is not None:
            self.failures[reason] += 1

    def count(self, users: np.ndarray, variants: list[str | None], clicks: np.ndarray) -> None:
        for user, variant, clicked in zip(users.tolist(), variants, clicks.tolist(), strict=True):
            if variant is None:
                continue
            row = self.variants.setdefault(variant, {"requests": 0, "clicks": 0})
            row["requests"] += 1
            row["clicks"] += clicked
            self.users.setdefault(variant, set()).add(user)

    def summary(self) -> dict[str, Any]:
        variants = {name: row | {"users": len(self.users[name])} for name, row in sorted(self.variants.items())}
        return {"failed": self.failures.total(), "failures": dict(self.failures.most_common(10)), "variants": variants}


def _payloads(world: World, searches: Searches) -> list[dict[str, Any]]:
    requests, queries = searches.requests, searches.queries
    ids = tables.request_ids(requests.number).to_pylist()
    users = world.population.user_id.take(pa.array(requests.user)).to_pylist()
    lists = tables.item_lists(world, searches.items).to_pylist()
    return [
        {
            "request_id": ids[row],
            "user_id": users[row],
            "query": query,
            "scenario": list(SEARCH_SCENARIOS[queries.scenario[row]]),
            "context": {"device": DEVICES[requests.device[row]]},
            "item_ids": lists[row],
            "top_k": world.config.exposed,
            "ts": (EPOCH + timedelta(microseconds=int(requests.ts[row]))).isoformat().replace("+00:00", "Z"),
        }
        for row, query in enumerate(texts(world, queries).to_pylist())
    ]


def _ask(rank: Ranker, payload: dict[str, Any]) -> tuple[list[int], str | None, str | None]:
    """Columns of the list in the order answered, and the variant; or nothing and the reason of the failure."""
    try:
        answer = rank(payload)
        return _columns(payload, answer), str(answer.get("variant", "")), None
    except Exception as error:  # whatever a ranker raises costs one request, not the experiment
        return [], None, f"{type(error).__name__}: {error}"


def _columns(payload: dict[str, Any], answer: dict[str, Any]) -> list[int]:
    place = {item: column for column, item in enumerate(payload["item_ids"])}
    answered = [item["item_id"] for item in answer["items"]]
    unknown = [item for item in answered if item not in place]
    if unknown or len(set(answered)) < len(answered) or not 0 < len(answered) <= payload["top_k"]:
        raise ServingError(
            f"an answer must hold 1 to {payload['top_k']} different items of the request, got {len(answered)} "
            f"({len(set(answered))} different, {len(unknown)} unknown)"
        )
    return [place[item] for item in answered]


def _require_same_marketplace(world: World, logs: Path) -> None:
    partition = logs / "requests" / f"day={world.date(world.config.days - 1).isoformat()}"
    users, items = logs / "users.parquet", logs / "items.parquet"
    if not (partition.exists() and users.exists() and items.exists()):
        raise DataError(f"{logs} holds no simulated logs up to {partition.name}: run the simulation with this config")
    pairs = (
        (users, tables.users_table(world), ["user_id", "registered_at"]),
        (items, tables.items_table(world), ["item_id", "title", "price"]),
    )
    # validated logs may come in another order and declare other nullability, so columns are compared
    same = True
    for path, own, names in pairs:
        written = pq.read_table(path).sort_by(names[0])
        same &= all(written[name].equals(own[name]) for name in names)
    if not same:
        raise DataError(
            f"the users and items of {logs} are not those of simulation config and seed {world.seed}: "
            "use the config the logs were written with"
        )
