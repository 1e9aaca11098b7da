"""Stage 4 on two requests by hand: parallel lists, hashes, missing values, Table 1, the flat export."""

from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features.es3.days import read_day, write_days
from features.es3.listwise import labelled, request_rows, write_rows
from features.es3.report import row_counts, summed, table_1
from features.es3.retrieve import item_inputs, query_inputs, request_inputs
from features.text import TextEncoder
from tests.es3.conftest import clock
from uniscale.artifacts import read_json
from uniscale.cli import app
from uniscale.hashing import hash64
from uniscale.samples import Feature, LabelSource, QueryRule, SampleSpec, Sampling, row_schema

pytestmark = [pytest.mark.spark, pytest.mark.xdist_group("spark")]

SPEC = SampleSpec(
    features=(
        Feature("user_id_hash", "user", "id", "request", "user"),
        Feature("user_clicks_7d", "user", "count", "request"),
        Feature("query_hash", "query", "id", "request", "query"),
        Feature("query_searches_7d", "query", "count", "request"),
        Feature("context_device", "context", "id", "request", "device"),
        Feature("context_hour", "context", "id", "request", "hour"),
        Feature("context_scenario", "context", "id", "request", "scenario"),
        Feature("item_hash", "item", "id", "candidate", "item"),
        Feature("item_brand", "item", "id", "candidate", "brand"),
        Feature("item_price", "item", "count", "candidate"),
        Feature("behaviour_item", "behaviour", "id", "behaviour", "item"),
    ),
    domains=("search", "feed"),
    scenarios=("keyword", "home"),
    tasks=("click", "conversion"),
    content_dim=2,
    text_dim=2,
    max_behaviours=4,
)
DAY = date(2026, 1, 5)
EXPOSED, UNEXPOSED, POSITIVE = int(Sampling.EXPOSED), int(Sampling.UNEXPOSED), int(Sampling.PSEUDO_POSITIVE)


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory):
    """A samples folder of one search request (two shown, one not) and one pseudo-request of an unknown item."""
    requests = spark.createDataFrame(
        [
            ("s", "u", clock(600), "shoe", 0, DAY, "search", ["keyword", "archived"], "phone",
             [("a", EXPOSED, 1), ("b", EXPOSED, 2), ("a2", UNEXPOSED, 0)]),
            ("p", "v", clock(61), None, 2, DAY, "feed", ["keyword", "home"], None, [("new", POSITIVE, 4)]),
        ],
        "request_id string, user_id string, ts timestamp, query string, query_rule byte, day date, "
        "domain string, scenario array<string>, context_device string, "
        "items array<struct<item_id:string,sampling:byte,position:smallint>>",
    )  # fmt: skip
    labels = spark.createDataFrame(
        [
            ("s", "b", "click", int(LabelSource.IN_DOMAIN)),
            ("s", "b", "conversion", int(LabelSource.CLICKED)),
            ("s", "a2", "click", int(LabelSource.UNEXPOSED)),
            ("p", "new", "click", int(LabelSource.PSEUDO)),
        ],
        "request_id string, item_id string, task string, source byte",
    )
    catalogue = pa.table({"item_id": ["a", "a2", "b"], "index": pa.array([1, 2, 3], pa.int32())})
    items = pa.table(
        {
            "item_id": ["a", "b", "a2", "new"],
            "item_brand": ["acme", None, "acme", None],
            "item_price": pa.array([2.5, 4.0, 1.0, None], pa.float32()),
        }
    )
    queries = pa.table({"query": ["shoe"], "query_searches_7d": pa.array([5.0], pa.float32())})
    encoder = TextEncoder.fit(["shoe"], dim=2, seed=0)
    found = pa.table(
        {
            "user_clicks_7d": pa.array([None, 3.0], pa.float32()),
            "behaviour_item_id": [None, ["b", "gone"]],
            "behaviour_ts": [None, [100, 200]],
        }
    )
    out = tmp_path_factory.mktemp("samples")
    request_rows(labelled(requests, labels, SPEC.tasks), SPEC).coalesce(1).write.parquet(str(out / "asked"))
    asked = pa.concat_tables(pq.read_table(file) for file in (out / "asked").glob("*.parquet"))
    assert asked["request_id"].to_pylist() == ["p", "s"]  # by day, domain and time
    (out / "whole").mkdir()
    pq.write_table(request_inputs(asked, found, catalogue, SPEC), out / "whole" / "0.parquet", row_group_size=1)
    for name, table in (("item", item_inputs(items, catalogue, SPEC)), ("query", query_inputs(queries, encoder, SPEC))):
        write_days(pa.chunked_array([[DAY] * len(table)], pa.date32()), table, out / name, 0)
    counts = write_rows(spark, out / "whole", out / "item", out / "query", SPEC, out / "rows")
    assert {day: {domain: n["requests"] for domain, n in found.items()} for day, found in counts.items()} == {
        "2026-01-05": {"feed": 1, "search": 1}
    }
    SPEC.save(out)
    return out


@pytest.fixture(scope="module")
def rows(folder):
    files = folder.glob("rows/*/*/*.parquet")
    return {row["request_id"]: row for file in files for row in pq.ParquetFile(file).read().to_pylist()}


def test_files_have_exactly_the_schema_of_the_contract(folder):
    files = sorted(folder.glob("rows/*/*/*.parquet"))
    assert [str(file.relative_to(folder).parent) for file in files] == [
        "rows/day=2026-01-05/domain=feed",
        "rows/day=2026-01-05/domain=search",
    ]
    for file in files:
        assert pq.read_schema(file).remove_metadata().equals(row_schema(SPEC))
        assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_task_that_is_tried_again_replaces_its_files(spark, folder, rows):
    before = {file: file.read_bytes() for file in folder.glob("rows/*/*/*")}
    write_rows(spark, folder / "whole", folder / "item", folder / "query", SPEC, folder / "rows")
    assert {file: file.read_bytes() for file in folder.glob("rows/*/*/*")} == before


def test_a_domain_that_comes_twice_in_a_row_group_loses_no_row(spark, folder, tmp_path):
    rows = pq.read_table(folder / "whole" / "0.parquet")
    (tmp_path / "whole").mkdir()
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), tmp_path / "whole" / "0.parquet")
    counts = write_rows(spark, tmp_path / "whole", folder / "item", folder / "query", SPEC, tmp_path / "rows")
    written = sum(pq.read_metadata(file).num_rows for file in (tmp_path / "rows").glob("*/*/*.parquet"))
    assert written == sum(n["requests"] for n in counts["2026-01-05"].values()) == 3


def test_a_day_is_read_as_written_in_any_number_of_batches(tmp_path):
    days = [date(2026, 1, 6), DAY, date(2026, 1, 6)]
    for number in range(2):
        write_days(pa.chunked_array([days]), pa.table({"n": [1 + 10 * number, 2, 3]}), tmp_path, number)
    assert read_day(tmp_path, "2026-01-06")["n"].to_pylist() == [1, 3, 11, 3]
    assert read_day(tmp_path, "2026-01-05")["n"].to_pylist() == [2, 2]
    assert read_day(tmp_path, "2026-01-07").num_rows == 0


def test_candidates_are_parallel_lists_in_the_order_of_the_items(rows):
    row = rows["s"]
    assert row["item"] == [1, 3, 2]
    assert row["sampling"] == [EXPOSED, EXPOSED, UNEXPOSED]
    assert row["position"] == [1, 2, 0]
    assert row["click"] == [0, 1, 1]
    assert row["click_source"] == [LabelSource.NONE, LabelSource.IN_DOMAIN, LabelSource.UNEXPOSED]
    assert row["conversion"] == [0, 1, 0]
    assert row["conversion_source"] == [0, LabelSource.CLICKED, 0]
    assert row["item_price"] == [2.5, 4.0, 1.0]


def test_ids_are_hashed_as_everywhere_and_a_missing_one_is_zero(rows):
    row = rows["s"]
    assert row["item_hash"] == [hash64("a"), hash64("b"), hash64("a2")]
    assert row["item_brand"] == [hash64("acme"), 0, hash64("acme")]
    assert row["user_id_hash"] == hash64("u") and row["query_hash"] == hash64("shoe")
    assert row["behaviour_item"] == [hash64("b"), hash64("gone")] and row["behaviour_index"] == [3, 0]
    assert rows["p"]["query_hash"] == 0 and rows["p"]["context_device"] == 0


def test_request_columns_and_context(rows):
    row = rows["s"]
    assert (row["domain_index"], row["scenarios"], row["query_rule"]) == (0, [0], QueryRule.TYPED)
    assert row["context_hour"] == hash64("10") and row["context_device"] == hash64("phone")
    assert row["context_scenario"] == hash64("archived|keyword")
    assert row["query_text"] == pytest.approx([1.0, 0.0])  # one text spans one direction: itself
    assert (rows["p"]["domain_index"], rows["p"]["scenarios"]) == (1, [0, 1])


def test_what_nobody_knows_is_a_true_nought_or_unknown(rows):
    row = rows["p"]
    assert row["user_clicks_7d"] == 0.0 and row["query_searches_7d"] == 0.0  # no event counted is a count of 0
    assert row["item_price"] == [None] and row["item"] == [0]
    assert row["query_text"] == [] and row["behaviour_ts"] == []
    assert row["item_hash"] == [hash64("new")]


def test_table_1_by_hand(folder):
    counts = {
        file.parent.name.removeprefix("domain="): row_counts(pq.ParquetFile(file).read().to_batches()[0], SPEC.tasks)
        for file in folder.glob("rows/*/*/*.parquet")
    }
    search, feed = counts["search"], counts["feed"]
    assert search == {
        "requests": 1, "samples": 3, "exposed": 2, "unexposed": 1,
        "click.in_domain": 1, "click.unexposed": 1, "conversion.clicked": 1, "query.typed": 1,
    }  # fmt: skip
    assert feed == {
        "requests": 1, "samples": 1, "pseudo_positive": 1, "click.pseudo": 1, "query.co_occurrence": 1
    }  # fmt: skip
    keys = ("requests", "samples", "click_positives", "requests_x", "samples_x", "click_positives_x")
    table = table_1(counts, "search", "click")
    assert [tuple(stage[key] for key in keys) for stage in table] == [
        (1, 2, 1, 1.0, 1.0, 1.0),
        (1, 3, 1, 1.0, 1.5, 1.0),
        (1, 3, 2, 1.0, 1.5, 2.0),
        (2, 4, 3, 2.0, 2.0, 3.0),
    ]


def test_counts_add_up_key_by_key():
    assert summed([]) == {}
    assert summed([{"a": 1, "b": {"c": 2}}, {"b": {"c": 3, "d": 4}}]) == {"a": 1, "b": {"c": 5, "d": 4}}


def test_table_1_without_a_baseline_has_no_multipliers():
    assert {stage["samples_x"] for stage in table_1({}, "search", "click")} == {None}


def test_the_flat_export_has_a_row_a_candidate(folder, tmp_path):
    target = tmp_path / "new" / "flat.parquet"
    result = CliRunner().invoke(app, ["flat", "--samples", str(folder), "--out", str(target)])
    assert result.exit_code == 0 and f"{target.stat().st_size:,} bytes" in result.output.replace("\n", "")
    found = duckdb.sql(
        f"SELECT request_id, item, click, item_price, user_clicks_7d FROM '{target}' ORDER BY ALL"
    ).fetchall()
    assert found == [("p", 0, 1, None, 0.0), ("s", 1, 0, 2.5, 3.0), ("s", 2, 1, 1.0, 3.0), ("s", 3, 1, 4.0, 3.0)]


def test_the_spec_beside_the_rows_reads_back(folder):
    assert SampleSpec.from_json(read_json(folder / "spec.json")) == SPEC
