"""The marketplace day by day: searches, feeds and ads under the production ranking, written as logs."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulation import tables
from simulation.feeds import Page, Trail, browse
from simulation.followups import Events, consequences, join
from simulation.population import Tastes
from simulation.queries import texts
from simulation.retrieval import Production, Retrieval
from simulation.search import Searches, clicks_on, off_search, reformulations, retrieve, shown_items
from simulation.traffic import MAX_ROUNDS, Requests, day_of_requests
from simulation.world import EVENT_TYPES, SEARCH, World, build_world
from uniscale.artifacts import atomic_folder
from uniscale.progress import track
from uniscale.sections import SimulationConfig

TRAIL_DAYS = 3  # today and the two days a search stays in mind


@dataclass(frozen=True)
class Round:
    """One round of searches and what was shown of it: columns (N, n) of the lists, and clicks on them."""

    searches: Searches
    shown: np.ndarray
    clicked: np.ndarray

    @property
    def satisfied(self) -> np.ndarray:
        """(N,) whether anything was clicked."""
        return np.asarray(self.clicked.any(axis=1))

    def trail(self) -> Trail:
        """What the feeds know about these searches."""
        requests = self.searches.requests
        items, visible = shown_items(self.searches, self.shown)
        return Trail(requests.user, requests.ts, requests.needs, self.searches.items, np.where(visible, items, -1))


class Pending:
    """Events that have been caused, until their day comes."""

    def __init__(self, world: World):
        self.world = world
        self.parts: list[Events] = []

    def add(self, events: Events) -> None:
        """Take in events of today or later."""
        self.parts.append(events)

    def due(self, day: int) -> Events:
        """Events of a day, which leave the store; those of later days stay."""
        everything = join(self.parts)
        today = everything.ts < self.world.midnight(day + 1)
        self.parts = [everything.where(~today)]
        return everything.where(today)


def write_logs(config: SimulationConfig, seed: int, out: Path) -> dict[str, int]:
    """Simulate `config.days` days and write them to `out` as logs of the contract, with truth/ beside them.

    The same (config, seed) gives the same bytes. truth/ holds, for every candidate of every search request, P(click |
    examined) and P(click and then buy, here or elsewhere | examined): both are without the effect of the position,
    which multiplies them by `behaviour.examination`. What falls after the last day is not written.

    Returns:
        Rows by table, requests by domain (`requests.search`) and events by type (`events.click`).
    """
    world = build_world(config, seed)
    retrieval, production, pending = Retrieval(world), Production(world), Pending(world)
    trails: deque[list[Trail]] = deque(maxlen=TRAIL_DAYS)
    rates = (
        config.search_requests_per_user_day,
        config.feed_requests_per_user_day,
        config.ads_requests_per_user_day,
    )
    counts: dict[str, int] = {"users": config.users, "items": config.items}
    with atomic_folder(Path(out)) as folder:
        tables.describe().save(folder)
        pq.write_table(tables.users_table(world), folder / "users.parquet", compression="zstd")
        pq.write_table(tables.items_table(world), folder / "items.parquet", compression="zstd")
        for day, tastes in track(world.tastes(range(config.days)), "simulate", config.days, "days"):
            first, *others = day_of_requests(world, tastes, day, rates)
            rounds = _search_all_day(world, tastes, retrieval, production, pending, first)
            trails.append([one.trail() for one in rounds])
            pages = []
            for requests in others:
                page, clicks = browse(world, tastes, production, [t for of_day in trails for t in of_day], requests)
                pending.add(consequences(world, clicks))
                pages.append(page)
            production.learn(_clicked_items(rounds, pages))
            write_a_day(world, folder, day, rounds, pages, pending.due(day), counts)
    return counts


def _search_all_day(
    world: World, tastes: Tastes, retrieval: Retrieval, production: Production, pending: Pending, first: Requests
) -> list[Round]:
    """First queries and their reformulations, under the production ranking."""
    rounds, requests = [], first
    for _ in range(MAX_ROUNDS):
        searches = retrieve(world, tastes, retrieval, requests)
        shown = production.top(searches.items, searches.scores, requests.number)
        rounds.append(react(world, searches, shown, pending))
        requests = reformulations(world, requests, rounds[-1].satisfied)
    return rounds


def react(world: World, searches: Searches, shown: np.ndarray, pending: Pending) -> Round:
    """Show columns (N, n) of the lists, -1 for nothing, and leave to `pending` all that users do about it."""
    clicked, clicks = clicks_on(world, searches, shown)
    one = Round(searches, shown, clicked)
    pending.add(consequences(world, clicks))
    pending.add(consequences(world, off_search(world, searches, shown, one.satisfied)))
    return one


def _clicked_items(rounds: list[Round], pages: list[Page]) -> np.ndarray:
    searched = [shown_items(one.searches, one.shown)[0][one.clicked] for one in rounds]
    return np.concatenate(searched + [page.items[page.clicked] for page in pages])


def write_a_day(
    world: World,
    folder: Path,
    day: int,
    rounds: list[Round],
    pages: list[Page],
    events: Events,
    counts: dict[str, int],
) -> None:
    """Write the partitions of a day and add to `counts`."""
    iso_day = world.date(day).isoformat()
    parts: dict[str, list[pa.Table]] = {
        table: [] for table in ("requests", "candidates", "exposures", "events", "truth")
    }
    for one in rounds:
        found, asked = one.searches, one.searches.requests
        items, visible = shown_items(found, one.shown)
        query = texts(world, found.queries)
        parts["requests"].append(tables.requests_table(world, asked, found.queries.scenario, query))
        parts["candidates"].append(tables.candidates_table(world, asked, found.items, found.scores))
        parts["exposures"].append(tables.exposures_table(world, asked, items, visible))
        parts["truth"].append(tables.truth_table(world, asked, found.items, found.click, found.buy))
    for page in pages:
        parts["requests"].append(tables.requests_table(world, page.requests, page.scenario, None))
        parts["exposures"].append(tables.exposures_table(world, page.requests, page.items, page.visible))
    parts["events"].append(tables.events_table(world, events, day))
    totals = {table: tables.write_day(folder, table, iso_day, tables_) for table, tables_ in parts.items()}
    domains = {SEARCH: sum(len(one.searches.requests) for one in rounds)}
    domains |= {page.requests.domain: len(page.requests) for page in pages}
    totals |= {f"requests.{tables.DOMAINS[domain]}": count for domain, count in domains.items()}
    totals |= {f"events.{name}": int((events.type == kind).sum()) for kind, name in enumerate(EVENT_TYPES)}
    for name, count in totals.items():
        counts[name] = counts.get(name, 0) + count
