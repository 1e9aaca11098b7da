"""Retrieval through Feast equals what one computes by hand, returns every row once, and agrees with online."""

import importlib
import shutil
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typeguard

from features.catalogue import missing_value
from tests.features.log_folder import FIRST_DAY, random_logs
from uniscale.artifacts import read_json
from uniscale.errors import DataError
from uniscale.logs import TIMESTAMP
from uniscale.samples import SampleSpec

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def asked():
    """Requests and instants on the edges: at an event, just after it, at midnight, before everything, nobody's."""
    logs = random_logs()
    rows = [(row["user_id"], row["ts"]) for row in logs.requests]
    rows += [(row["user_id"], row["ts"] + timedelta(microseconds=tick)) for row in logs.events[:40] for tick in (0, 1)]
    rows += [(f"u{user}", FIRST_DAY + day * DAY) for user in range(5) for day in range(15)]
    rows += [("u1", FIRST_DAY - DAY), ("nobody", FIRST_DAY + 5 * DAY), rows[0], rows[0]]
    return pa.table(
        {
            "row_id": pa.array(range(1000, 1000 + len(rows)), pa.int64()),
            "user_id": [user for user, _ in rows],
            "ts": pa.array([ts for _, ts in rows], TIMESTAMP),
        }
    )


@pytest.fixture(scope="module")
def retrieved(features, asked):
    from features.store.retrieval import request_features

    shuffled = asked.take(pa.array(sorted(range(len(asked)), key=lambda row: (row * 7919) % 1009)))
    return request_features(features, shuffled)


def test_every_row_returns_once_and_in_order(retrieved, asked):
    assert retrieved["row_id"].equals(asked["row_id"])


def test_requests_equal_an_asof_join(features, retrieved, asked):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("asked", asked)
    for view in ("user_statistics", "user_behaviours", "user_profile"):
        table = features / "tables" / f"{view}.parquet"
        names = [name for name in pq.read_schema(table).names if name not in ("user_id", "ts")]
        expected = connection.sql(f"""
            SELECT {", ".join(f"v.{name}" for name in names)}
            FROM asked a ASOF LEFT JOIN '{table}' v ON a.user_id = v.user_id AND a.ts >= v.ts ORDER BY a.row_id
            """).to_arrow_table()
        for name in names:
            missing = {"user_statistics": 0.0, "user_behaviours": [], "user_profile": None}[view]
            want = [missing if value is None else value for value in expected[name].to_pylist()]
            assert retrieved[name].to_pylist() == want, name


def test_behaviours_equal_the_newest_events_before_the_request(config, retrieved, asked):
    events = sorted(random_logs().events, key=lambda row: (row["ts"], row["event_id"]))
    for row, found in zip(asked.to_pylist(), retrieved.to_pylist(), strict=True):
        past = [event for event in events if event["user_id"] == row["user_id"] and event["ts"] < row["ts"]]
        newest = past[-config.features.max_behaviours :]
        assert found["behaviour_item_id"] == [event["item_id"] for event in newest]
        assert found["behaviour_type"] == [event["type"] for event in newest]
        assert found["behaviour_ts"] == [int(event["ts"].timestamp()) for event in newest]


def test_item_days_equal_versions_and_counts(features):
    from features.store.retrieval import item_day_features

    logs = random_logs()
    keys = [(f"i{item}", FIRST_DAY + day * DAY) for item in range(30) for day in range(15)]
    rows = {"row_id": pa.array(range(len(keys)), pa.int64()), "item_id": [item for item, _ in keys]}
    found = item_day_features(features, pa.table({**rows, "ts": pa.array([ts for _, ts in keys], TIMESTAMP)}))
    for (item, ts), row in zip(keys, found.to_pylist(), strict=True):
        versions = [v for v in logs.items if v["item_id"] == item and v["valid_from"] <= ts]
        newest = max(versions, key=lambda v: v["valid_from"])
        assert row["item_price"] == pytest.approx(newest["price"], rel=1e-6)
        assert (row["item_brand"], row["item_seller"], row["item_colour"]) == (
            newest["brand"],
            newest["seller"],
            newest["colour"],
        )
        path = [*newest["category"], None, None]
        assert row["item_category_1"] == path[0]
        assert row["item_category_2"] == (path[1] and " > ".join(path[:2]))
        shown = sum(x["item_id"] == item and ts - 7 * DAY <= x["ts"] < ts for x in logs.exposures)
        assert row["item_exposures_7d"] == shown


def test_unknown_queries_and_items_count_nothing(features):
    from features.store.retrieval import item_day_features, query_day_features

    rows = {"row_id": pa.array([7, 3], pa.int64()), "ts": pa.array([FIRST_DAY + 4 * DAY] * 2, TIMESTAMP)}
    queries = query_day_features(features, pa.table({**rows, "query": ["nothing like it", None]}))
    assert queries["row_id"].to_pylist() == [3, 7]
    assert all(value == 0 for row in queries.drop_columns("row_id").to_pylist() for value in row.values())
    item = item_day_features(features, pa.table({**rows, "item_id": ["no such item"] * 2})).to_pylist()[0]
    assert item["item_brand"] is None and item["item_price"] is None and item["item_ctr_30d"] == pytest.approx(0.05)


def test_no_statistic_is_null(features, retrieved):
    for feature in SampleSpec.load(features).select("request", ("count", "number")):
        if feature.block == "user":
            assert retrieved[feature.name].null_count == 0 and retrieved[feature.name].type == pa.float32()


def test_rows_are_joined_in_parts(features, asked, retrieved, monkeypatch):
    from features.store import retrieval

    monkeypatch.setattr(retrieval, "ROWS_A_READ", 150)
    assert retrieval.request_features(features, asked).equals(retrieved)
    empty = retrieval.request_features(features, asked.slice(0, 0))
    assert len(empty) == 0 and empty.schema == retrieved.schema


def test_a_dataset_without_users_has_no_user_columns(config, tmp_path):
    from features.build import build_features
    from features.store.retrieval import request_features

    logs = random_logs()
    logs.description = replace(logs.description, has_users=False, profile=(), has_text=False, has_embeddings=False)
    folder = tmp_path / "it's a folder"  # a quote in a path must not end an SQL literal
    report = build_features(config, logs.write(folder / "logs"), folder / "features")
    assert set(report["rows"]) == {"item_versions", "item_statistics", "query_statistics"}
    assert not (folder / "features" / "text_encoder").exists()
    rows = {"row_id": pa.array([2, 1], pa.int64()), "user_id": ["u1", "u2"]}
    found = request_features(folder / "features", pa.table({**rows, "ts": pa.array([FIRST_DAY] * 2, TIMESTAMP)}))
    assert found.to_pylist() == [{"row_id": 1}, {"row_id": 2}]
    assert SampleSpec.load(folder / "features").text_dim == 0


def test_a_missing_column_is_named(features):
    from features.store.retrieval import request_features

    with pytest.raises(DataError, match="'ts'"):
        request_features(features, pa.table({"row_id": pa.array([1], pa.int64()), "user_id": ["u1"]}))


def plain(value):
    """Feast's online lists hold "" where there is no name."""
    return [each or None for each in value] if isinstance(value, list) else value


ASKED = [
    (("ranking_requests", "ranking_moments"), "user_id", "request_features"),
    (("ranking_queries",), "query", "query_day_features"),
    (("ranking_items",), "item_id", "item_day_features"),
]


def keys_that_agree(features, services, key, function):
    """How many keys some services have; each of their columns is the same offline and online for every one of them."""
    from features.store import retrieval
    from features.store.repository import WITHOUT_BEHAVIOUR, open_online

    table = {"user_id": "user_statistics", "query": "query_statistics", "item_id": "item_versions"}[key]
    keys = sorted(set(pq.read_table(features / "tables" / f"{table}.parquet")[key].to_pylist()))
    report, offline = read_json(features / "report.json"), {}
    for instant in ("as_of", "attributes_as_of"):
        at = pa.repeat(pa.scalar(report[instant]).cast(TIMESTAMP), len(keys))
        rows = {"row_id": pa.array(range(len(keys)), pa.int64()), key: keys, "ts": at}
        offline[instant] = getattr(retrieval, function)(features, pa.table(rows))
    store = open_online(features)
    views = {view.name: {field.name for field in view.features} for view in store.list_batch_feature_views()}
    attributes = set().union(*(names for view, names in views.items() if view in WITHOUT_BEHAVIOUR))
    views = [view for name in services for view in store.get_feature_service(name).feature_view_projections]
    now = {"asked": datetime.fromisoformat(report["as_of"]).timestamp()} if key == "user_id" else {}
    online = store.get_online_features(
        [f"{view.name}:{feature.name}" for view in views for feature in view.features],
        [{key: each, **now} for each in keys],
    ).to_dict()
    assert set(online) == set(offline["as_of"].column_names) - {"row_id"} | {key}
    unknown = {f.name: missing_value(f) for f in SampleSpec.load(features).features if f.kind != "id"}
    for name in set(online) - {key}:
        column = offline["attributes_as_of" if name in attributes else "as_of"][name]
        # Of a user with no row yet the online store knows nothing, and who reads it fills in what retrieval does.
        blank = [] if pa.types.is_list(column.type) else unknown.get(name)
        assert [blank if value is None else plain(value) for value in online[name]] == column.to_pylist(), name
    return len(keys)


@pytest.mark.parametrize(("services", "key", "function"), ASKED)
def test_offline_equals_online_at_the_instants_of_the_online_store(features, services, key, function):
    assert keys_that_agree(features, services, key, function) > 0


@pytest.mark.slow
def test_offline_equals_online_on_ten_thousand_users(config, tmp_path):
    from features.build import build_features

    logs = random_logs(users=12_000, items=300, requests=30_000).write(tmp_path / "logs")
    build_features(config, logs, tmp_path / "features")
    assert keys_that_agree(tmp_path / "features", *ASKED[0]) >= 10_000


@pytest.mark.filterwarnings("ignore:On demand feature view")
def test_the_plan_of_unchanged_definitions_is_empty(features):
    """What `feast plan` prints, for the registry that a build wrote."""
    from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView
    from feast.repo_contents import RepoContents

    from features.store.repo.definitions import definitions
    from features.store.repository import open_online

    store = open_online(features)
    objects = definitions(SampleSpec.load(features), features.resolve() / "tables")
    views, on_demand, entities, services = (
        [one for one in objects if isinstance(one, kind)]
        for kind in (FeatureView, OnDemandFeatureView, Entity, FeatureService)
    )
    sources = [source for view in views for source in (view.batch_source, view.stream_source) if source]
    sources += [source for view in on_demand for source in view.source_request_sources.values()]
    projects = store.registry.list_projects()
    diff, _, _ = store.plan(RepoContents(projects, sources, views, on_demand, [], [], entities, services, []))
    own = {"batch_source", "stream_source"}  # Feast compares the moments they were registered, too
    assert not [
        one.name
        for one in diff.feast_object_diffs
        if {each.property_name for each in one.feast_object_property_diffs} - own
        or (one.transition_type.name in ("CREATE", "DELETE") and one.name != "__dummy")
    ]


def test_the_online_store_of_a_real_log_knows_nothing_of_its_test_days(features, logs, config):
    from features.splits import split_by_time

    days = [date.fromisoformat(path.name.removeprefix("day=")) for path in (logs / "requests").glob("day=*")]
    report = read_json(features / "report.json")
    assert (
        report["as_of"][:10]
        == split_by_time(min(days), max(days), ["click", "purchase"], config.samples).test[0].isoformat()
    )
    assert report["attributes_as_of"][:10] == (max(days) + DAY).isoformat()


def test_a_moved_folder_works(features, asked, retrieved, tmp_path):
    from features.store.repository import open_online
    from features.store.retrieval import request_features

    shutil.copytree(features, tmp_path / "elsewhere")
    assert request_features(tmp_path / "elsewhere", asked).equals(retrieved)
    store = open_online(tmp_path / "elsewhere")
    answer = store.get_online_features(["user_statistics:user_clicks_30d"], [{"user_id": "u1"}]).to_dict()
    assert answer["user_clicks_30d"][0] > 0


def test_fresh_behaviours_take_their_place_in_time_online(features, config, tmp_path):
    from features.store.online import push_behaviours
    from features.store.repository import open_online

    folder = tmp_path / "features"
    shutil.copytree(features, folder)
    store = open_online(folder)
    names = ["user_behaviours:behaviour_item_id", "user_behaviours:behaviour_type", "user_behaviours:behaviour_ts"]
    before = store.get_online_features(names, [{"user_id": "u1"}]).to_dict()
    t = FIRST_DAY + 15 * DAY
    fresh = pa.table(
        {
            "user_id": ["new", "u1", "u1"],
            "item_id": ["i4", "i3", "i2"],
            "ts": pa.array([t, t + timedelta(seconds=9), t], TIMESTAMP),
            "type": ["click", "purchase", "click"],
        }
    )
    assert push_behaviours(folder, fresh, store) == 2
    after = store.get_online_features(names, [{"user_id": "u1"}, {"user_id": "new"}]).to_dict()
    longest = config.features.max_behaviours
    assert after["behaviour_item_id"] == [(before["behaviour_item_id"][0] + ["i2", "i3"])[-longest:], ["i4"]]
    assert after["behaviour_type"][0][-2:] == ["click", "purchase"]
    assert after["behaviour_ts"][0][-2:] == [int(t.timestamp()), int(t.timestamp()) + 9]
    assert push_behaviours(folder, fresh.slice(0, 0), store) == 0
    late = pa.table(
        {
            "user_id": ["new", "u1"],
            "item_id": ["i5", "i6"],
            "ts": pa.array([t - DAY, t + timedelta(seconds=5)], TIMESTAMP),
            "type": ["click", "cart"],
        }
    )
    push_behaviours(folder, late, store)
    after = store.get_online_features(names, [{"user_id": "u1"}, {"user_id": "new"}]).to_dict()
    assert [items[-3:] for items in after["behaviour_item_id"]] == [["i2", "i6", "i3"], ["i5", "i4"]]
    assert [ts == sorted(ts) for ts in after["behaviour_ts"]] == [True, True]
    with pytest.raises(DataError, match="unknown items, such as 'nothing'"):
        push_behaviours(folder, fresh.set_column(1, "item_id", pa.array(["nothing"] * 3)), store)


@pytest.fixture(scope="module")
def online(features):
    from features.store.repo.definitions import SERVICES
    from serving.online_features import OnlineFeatures

    return OnlineFeatures(features, SampleSpec.load(features), [*SERVICES])


def test_the_service_reads_every_item_in_the_order_given(features, online):
    """Raw columns of all candidate features, as the point-in-time retrieval gives them at the store's instant."""
    from features.store.retrieval import item_day_features

    spec, stored = SampleSpec.load(features), pq.read_table(features / "items.parquet")
    ids = stored["item_id"].to_pylist()[::-1]
    items = online.items(ids)
    assert items["item_id"].to_pylist() == ids and stored["index"].to_pylist() == list(range(1, 31))
    raw = {f.name for f in spec.select("candidate")} - {"item_hash"}
    assert raw <= set(items.column_names)
    as_of = pa.scalar(read_json(features / "report.json")["as_of"]).cast(TIMESTAMP)
    rows = pa.table({"row_id": range(30), "item_id": ids, "ts": pa.repeat(as_of, 30)})
    offline = item_day_features(features, rows)
    clicks = sorted(name for name in raw if name.startswith("item_clicks"))
    assert clicks and all(
        [value or 0.0 for value in items[name].to_pylist()] == offline[name].to_pylist() for name in clicks
    )


@pytest.mark.parametrize("query", ["red shoe", "a new query", None])
def test_a_local_store_gives_what_feasts_own_look_up_gives(online, monkeypatch, query):
    asked = (FIRST_DAY + 20 * DAY).timestamp()
    for user in ("u1", "u2", "u3", "nobody"):
        direct = online.read(user, query, asked)
        with monkeypatch.context() as patched:
            patched.setattr(online, "_local", None)
            stock = online.read(user, query, asked)
        assert (direct.values, direct.behaviour_items) == (stock.values, stock.behaviour_items)
        assert direct.behaviour_ts.tolist() == stock.behaviour_ts.tolist()
        assert {name: ids.tolist() for name, ids in direct.behaviours.items()} == {
            name: ids.tolist() for name, ids in stock.behaviours.items()
        }
    nobody = online.read("nobody", query, asked)
    assert nobody.behaviour_items == [] and nobody.values["user_idle_hours"] == 720


def test_a_models_service_reads_no_view_that_the_model_leaves_unread(features, tmp_path):
    from features.store.repository import add_models
    from serving.online_features import OnlineFeatures
    from uniscale.errors import ServingError

    folder = tmp_path / "features"
    shutil.copytree(features, folder)
    whole = SampleSpec.load(folder)
    without = {"user_statistics", "user_behaviours", "query_statistics", "item_statistics"}
    add_models(folder, {"model_1": whole.without(without), "model_2": whole.without({*whole.views} - {"user_profile"})})
    one = OnlineFeatures(folder, whole.without(without), ["model_1"])
    assert set(one.items(["i1"]).column_names) - {"item_id"} == {
        f.name for f in whole.features if f.view == "item_versions"
    }
    read, asked = one.read("u1", None, (FIRST_DAY + 20 * DAY).timestamp()), one._request_references
    assert {reference.partition(":")[0] for reference in asked} == {"user_profile", "user_moments"}
    assert set(read.values) == {"user_id_hash", "user_gender", "user_idle_hours", "user_behaviours_1h", "query_hash"}
    assert (read.behaviour_items, len(read.behaviour_ts), read.behaviours) == ([], 0, {})
    assert 0 < read.values["user_idle_hours"] < 720
    both = OnlineFeatures(folder, whole.without(without), ["model_1", "model_2"])
    assert both._request_references == asked
    with pytest.raises(ServingError, match="model_3"):
        OnlineFeatures(folder, whole, ["model_3"])


def test_the_encoder_has_seen_no_text_of_the_test_days(features, config):
    from datetime import date

    from features.splits import split_by_time

    logs = random_logs()
    days = [row["ts"].date() for row in logs.requests]
    cutoff = split_by_time(min(days), max(days), ["click", "purchase"], config.samples).test[0]
    texts = {row["query"] for row in logs.requests if row["query"] and row["ts"].date() < cutoff}
    texts |= {row["title"] for row in logs.items if row["valid_from"].date() < cutoff}
    assert cutoff > date(2026, 1, 5) and read_json(features / "report.json")["texts"] == len(texts)


def test_typeguard_still_checks_for_others_once_feast_is_imported():
    def wants_text(value: str) -> None:
        """Nothing."""

    importlib.import_module("features.store")
    assert "feast" in sys.modules
    with pytest.raises(typeguard.TypeCheckError):
        typeguard.typechecked(wants_text)(1)
