"""Redis as the online store answers what sqlite answers, takes what streams push, and its loss is an error at once."""

import shutil
import signal
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.features.log_folder import FIRST_DAY
from tests.features.redis_server import needs_redis, redis_server
from uniscale.artifacts import read_json
from uniscale.logs import TIMESTAMP
from uniscale.samples import SampleSpec

pytestmark = needs_redis
ASKED = (FIRST_DAY + timedelta(days=20)).timestamp()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def in_redis(features, config, server, tmp_path):
    server.empty()  # equal tables have equal keys, and what another test pushed is newer than the tables
    return materialised(features, tmp_path / "features", in_server(config, server))


def in_server(config, server):
    return config.features.model_copy(update={"online_store": "redis", "redis_url": server.url})


def materialised(features, folder, config, earlier=timedelta(0)):
    """A copy of a FEATURES folder with an online store of its own, as of the same instants or earlier ones."""
    from features.store.repository import materialise

    shutil.copytree(features, folder, ignore=shutil.ignore_patterns("store"))
    report = read_json(folder / "report.json")
    instants = [datetime.fromisoformat(report[name]) - earlier for name in ("as_of", "attributes_as_of")]
    materialise(folder, config, *instants)
    return folder


def opened(folder):
    from features.store.repo.definitions import SERVICES
    from serving.online_features import OnlineFeatures

    return OnlineFeatures(folder, SampleSpec.load(folder), [*SERVICES])


def answers(store, users, queries):
    found = [store.read(user, query, ASKED) for user, query in zip(users, queries, strict=True)]
    return [
        (one.values, one.behaviour_items, one.behaviour_ts.tolist(), {k: v.tolist() for k, v in one.behaviours.items()})
        for one in found
    ]


def keys(folder):
    tables = {"user_id": "user_statistics", "query": "query_statistics", "item_id": "item_versions"}
    found = {key: pq.read_table(folder / "tables" / f"{table}.parquet")[key].unique() for key, table in tables.items()}
    users, queries = sorted(found["user_id"].to_pylist()), sorted(found["query"].to_pylist())
    users += ["nobody"] * (len(queries) - len(users))
    return users, [*queries, *[None] * (len(users) - len(queries))], found["item_id"].to_pylist()


def test_redis_answers_what_sqlite_answers(features, in_redis):
    users, queries, items = keys(features)
    sqlite, redis = opened(features), opened(in_redis)
    assert len(users) > 5 and not (in_redis / "store" / "online.db").exists()
    assert answers(redis, users, queries) == answers(sqlite, users, queries)
    assert redis.items([*items, "nothing"]).equals(sqlite.items([*items, "nothing"]))


def test_streams_push_into_redis_what_they_push_into_sqlite(features, in_redis, tmp_path):
    from features.store.online import push_behaviours

    beside = tmp_path / "sqlite"
    shutil.copytree(features, beside)
    start = FIRST_DAY + timedelta(days=15)
    # Several within a second, several late, one twice as old: each is there although its user's newest is not newer.
    for item, seconds in enumerate((0.2, 0.5, 0.9, 1.0, -40, -30, -90_000, 1.0), start=1):
        event = {"user_id": ["u1"], "item_id": [f"i{item}"], "type": ["click"]}
        at = pa.array([start + timedelta(seconds=seconds)], TIMESTAMP)
        for folder in (beside, in_redis):
            push_behaviours(folder, pa.table({**event, "ts": at}))
    pushed, expected = (answers(opened(folder), ["u1"], [None])[0] for folder in (in_redis, beside))
    assert pushed == expected
    assert {"i1", "i2", "i3", "i4", "i8"} <= set(pushed[1])


def test_another_build_on_the_same_server_is_a_store_of_its_own(features, in_redis, config, server, tmp_path):
    """Its rows have the same keys and instants, and other values; taking it down leaves the other."""
    from features.store.repository import open_online

    changed = tmp_path / "changed"
    shutil.copytree(features, changed, ignore=shutil.ignore_patterns("store"))
    path = changed / "tables" / "item_versions.parquet"
    table = pq.read_table(path)
    dearer = pc.add(table["item_price"], pa.scalar(1.0, pa.float32()))
    pq.write_table(table.set_column(table.column_names.index("item_price"), "item_price", dearer), path)
    before, kept = opened(in_redis).items(["i1"]), server.keys()
    rebuilt = materialised(changed, tmp_path / "rebuilt", in_server(config, server))
    assert opened(rebuilt).items(["i1"])["item_price"][0].as_py() == before["item_price"][0].as_py() + 1
    assert opened(in_redis).items(["i1"]).equals(before)
    open_online(rebuilt).teardown()
    assert server.keys() == kept


def test_equal_tables_up_to_an_earlier_instant_are_stores_of_their_own(features, in_redis, config, server, tmp_path):
    """What the later one holds is younger, so Feast would leave it where both had one key."""
    users, queries, _ = keys(features)
    week = timedelta(days=7)
    redis = materialised(features, tmp_path / "redis", in_server(config, server), week)
    sqlite = materialised(features, tmp_path / "sqlite", config.features, week)
    assert answers(opened(redis), users, queries) == answers(opened(sqlite), users, queries)
    assert answers(opened(in_redis), users, queries) == answers(opened(features), users, queries)
    assert answers(opened(sqlite), users, queries) != answers(opened(features), users, queries)


@pytest.mark.parametrize("loss", ["killed", "hanging"])
def test_a_lost_server_is_an_error_within_a_request_and_none_once_it_is_back(in_redis, server, loss):
    from serving.inputs import FeatureStoreError

    store = opened(in_redis)
    before = answers(store, ["u1"], ["red shoe"])
    server.kill() if loss == "killed" else server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(FeatureStoreError, match="Connection refused" if loss == "killed" else "Timeout"):
            store.read("u1", "red shoe", ASKED)
    finally:
        server.start() if loss == "killed" else server.process.send_signal(signal.SIGCONT)
    assert answers(store, ["u1"], ["red shoe"]) == before


def test_what_a_connection_says_of_waiting_stands_and_a_short_deadline_leaves_time_to_connect():
    from serving.online_features import CONNECT_SECONDS, _patient

    assert _patient("a:1,b:2,ssl=true", 0.2) == (
        f"a:1,b:2,ssl=true,retry=null,socket_timeout=0.2,socket_connect_timeout={CONNECT_SECONDS}"
    )
    assert _patient("a:1,socket_timeout=3", 2.0) == "a:1,socket_timeout=3,retry=null,socket_connect_timeout=2.0"
