"""The simulation's arrays as the Arrow tables of the log contract (`uniscale.logs`), and as files by day."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simulation.catalogue import numbered
from simulation.feeds import ADS_SCENARIOS, FEED_SCENARIOS
from simulation.followups import Events
from simulation.population import AGE_BANDS, CITY_TIERS, DEVICES, GENDERS
from simulation.queries import SEARCH_SCENARIOS
from simulation.search import EXPOSURE_DELAY
from simulation.traffic import Requests
from simulation.world import DAY, DOMAINS, EVENT_TYPES, SCENARIOS, SECOND, World
from uniscale.logs import FLOATS, STRINGS, TABLES, TIMESTAMP, LogDescription

PROFILE = ("gender", "age_band", "city_tier")
CONTEXT = ("device",)
SCENARIO_LISTS = (SEARCH_SCENARIOS, FEED_SCENARIOS, ADS_SCENARIOS)  # by domain
EXTRA = {"users": PROFILE, "requests": CONTEXT}
TRUTH = pa.schema(
    [
        ("request_id", pa.string()),
        ("item_ids", STRINGS),
        ("click_probability", FLOATS),  # P(click | examined): the position is taken out
        ("purchase_probability", FLOATS),  # P(click and then buy, here or elsewhere | examined)
    ]
)


def schema(table: str) -> pa.Schema:
    """Columns of a log table as the simulation writes it: the contract's, then the profile or context columns."""
    columns = [(column.name, column.type) for column in TABLES[table].columns]
    return pa.schema(columns + [(name, pa.string()) for name in EXTRA.get(table, ())])


def describe() -> LogDescription:
    """What the simulated logs hold."""
    return LogDescription(
        name="simulation",
        domains=DOMAINS,
        scenarios=SCENARIOS,
        tasks={"click": "click", "conversion": "purchase"},
        profile=PROFILE,
        context=CONTEXT,
        has_truth=True,
        limits=("users are simulated: the logs show what the pipeline can recover, not what shoppers do",),
    )


def users_table(world: World) -> pa.Table:
    """All users, ordered by id."""
    people = world.population
    registered = world.midnight(0) + people.registered_day * DAY + people.registered_second * SECOND
    return pa.table(
        [
            people.user_id,
            _times(registered),
            _choose(GENDERS, people.gender),
            _choose(AGE_BANDS, people.age_band),
            _choose(CITY_TIERS, people.city_tier),
        ],
        schema=schema("users"),
    ).sort_by("user_id")


def items_table(world: World) -> pa.Table:
    """All items, one version each, ordered by id."""
    catalogue = world.catalogue
    paths = pa.array([list(path) for path in catalogue.names], STRINGS)
    width = catalogue.embedding.shape[1]
    offsets = np.arange(0, catalogue.embedding.size + 1, width, dtype=np.int32)
    return pa.table(
        [
            catalogue.item_id,
            _times(world.midnight(0) + catalogue.first_day.astype(np.int64) * DAY),
            pa.array(catalogue.titles(), pa.string()),
            paths.take(pa.array(catalogue.leaf)),
            _choose(catalogue.brands, catalogue.brand),
            pa.array(catalogue.price),
            numbered("s", catalogue.seller, digits=4),
            pa.ListArray.from_arrays(offsets, pa.array(catalogue.embedding.ravel())),
        ],
        schema=schema("items"),
    ).sort_by("item_id")


def requests_table(world: World, requests: Requests, scenario: np.ndarray, query: pa.Array | None) -> pa.Table:
    """Requests of one domain; `scenario` (N,) indexes the domain's scenario lists."""
    lists = pa.array([list(names) for names in SCENARIO_LISTS[requests.domain]], STRINGS)
    count = len(requests)
    return pa.table(
        [
            request_ids(requests.number),
            _choose(DOMAINS, np.full(count, requests.domain)),
            lists.take(pa.array(scenario)),
            world.population.user_id.take(pa.array(requests.user)),
            _times(requests.ts),
            pa.nulls(count, pa.string()) if query is None else query,
            _choose(DEVICES, requests.device),
        ],
        schema=schema("requests"),
    )


def exposures_table(world: World, requests: Requests, items: np.ndarray, visible: np.ndarray) -> pa.Table:
    """One row an item shown; items (N, n) in the order of their positions."""
    row, column = np.nonzero(visible)
    return pa.table(
        [
            request_ids(requests.number).take(pa.array(row)),
            world.catalogue.item_id.take(pa.array(items[row, column])),
            pa.array((column + 1).astype(np.int32)),
            _times(requests.ts[row] + EXPOSURE_DELAY),
        ],
        schema=schema("exposures"),
    )


def candidates_table(world: World, requests: Requests, items: np.ndarray, scores: np.ndarray) -> pa.Table:
    """One row a search request: its list and the retrieval's scores."""
    return pa.table(
        [request_ids(requests.number), item_lists(world, items), _lists(scores, items >= 0)],
        schema=schema("candidates"),
    )


def truth_table(world: World, requests: Requests, items: np.ndarray, click: np.ndarray, buy: np.ndarray) -> pa.Table:
    """One row a search request: the truth about every listed item, given that it is examined."""
    listed = items >= 0
    columns = [item_lists(world, items), _lists(click, listed), _lists(click * buy, listed)]
    return pa.table([request_ids(requests.number), *columns], schema=TRUTH)


def events_table(world: World, events: Events, day: int) -> pa.Table:
    """Events of a day in order of time, with their ids."""
    events = events.where(np.lexsort((events.item, events.user, events.type, events.ts)))
    known = events.request >= 0
    return pa.table(
        [
            numbered("e", day * 10**8 + np.arange(len(events)), digits=12),
            world.population.user_id.take(pa.array(events.user)),
            world.catalogue.item_id.take(pa.array(events.item)),
            _times(events.ts),
            _choose(DOMAINS, events.domain),
            _choose(EVENT_TYPES, events.type),
            pc.if_else(pa.array(known), request_ids(np.maximum(events.request, 0)), None),
            pa.array(events.amount, mask=np.isnan(events.amount)),
        ],
        schema=schema("events"),
    )


def request_ids(number: np.ndarray) -> pa.Array:
    """Ids of request numbers."""
    return numbered("r", number, digits=12)


def item_lists(world: World, items: np.ndarray) -> pa.ListArray:
    """Item ids of the rows (N, C); entries below 0 are left out."""
    listed = items >= 0
    return pa.ListArray.from_arrays(_offsets(listed), world.catalogue.item_id.take(pa.array(items[listed])))


def write_day(folder: Path, table: str, iso_day: str, parts: Sequence[pa.Table]) -> int:
    """Write one partition and return its number of rows."""
    path = folder / table / f"day={iso_day}"
    path.mkdir(parents=True)
    whole = pa.concat_tables(parts)
    pq.write_table(whole, path / "part-0.parquet", compression="zstd")
    return int(whole.num_rows)


def _lists(values: np.ndarray, valid: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(_offsets(valid), pa.array(values[valid].astype(np.float32)))


def _offsets(valid: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(valid.sum(1))]).astype(np.int32)


def _choose(names: Sequence[str | None], index: np.ndarray) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(index))


def _times(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds.astype(np.int64)).cast(TIMESTAMP)
