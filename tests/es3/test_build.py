"""The whole job on a tiny simulated log: splits, laws of the rows, leakage, tell-tales, poorer sources, bad input."""

import shutil
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from features.build import build_features
from features.es3.build import build_samples
from features.es3.days import read_day
from features.es3.report import skipped_stages
from features.es3.retrieve import write_query_days
from features.store.retrieval import item_day_features, request_features
from tests.es3.conftest import CONFIG
from uniscale.artifacts import read_json, write_json
from uniscale.errors import DataError
from uniscale.hashing import hash64, hash_many
from uniscale.logs import LogDescription
from uniscale.samples import LabelSource, QueryRule, SampleSpec, Sampling, row_schema

pytestmark = [pytest.mark.spark, pytest.mark.xdist_group("spark")]


def read_rows(samples: Path) -> pa.Table:
    """All rows of a samples folder with their day, in a fixed order."""
    parts = []
    for file in samples.glob("rows/*/*/*.parquet"):
        part = pq.ParquetFile(file).read()
        day = file.parent.parent.name.removeprefix("day=")
        parts.append(part.append_column("day", pa.array([day] * len(part), pa.string())))
    return pa.concat_tables(parts).combine_chunks().sort_by([("request_id", "ascending")])


@pytest.fixture(scope="module")
def rows(market, manifest):
    return read_rows(market / "samples")


@pytest.fixture(scope="module")
def candidates(rows):
    """The candidate-level columns, flat, with the request's row number in `row`."""
    lengths = np.array([len(items) for items in rows["item"]])
    columns = {"row": np.repeat(np.arange(len(rows)), lengths)}
    for name in rows.column_names:
        if pa.types.is_list(rows.schema.field(name).type) and name in LISTS:
            columns[name] = rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return columns


LISTS = ("item", "sampling", "position", "click", "click_source", "conversion", "conversion_source", "item_hash")


def test_every_file_has_the_schema_of_the_contract(market, manifest):
    schema = row_schema(SampleSpec.load(market / "samples"))
    for file in (market / "samples").glob("rows/*/*/*.parquet"):
        assert pq.read_schema(file).remove_metadata().equals(schema)


def test_only_days_of_the_splits_are_written(rows, manifest):
    assert manifest["splits"] == {
        "train": ["2026-01-07", "2026-01-11"],
        "valid": ["2026-01-12", "2026-01-12"],
        "test": ["2026-01-15", "2026-01-16"],
    }
    assert set(rows["day"].to_pylist()) == {f"2026-01-{day:02d}" for day in (7, 8, 9, 10, 11, 12, 15, 16)}
    assert all(f"{row['ts']:%Y-%m-%d}" == row["day"] for row in rows.select(["ts", "day"]).to_pylist())


def test_requests_add_up(market, manifest):
    found = manifest["search_requests"]
    parts = ("warm_up", "immature", "without_exposures", "written")
    assert found["logged"] == sum(found[part] for part in parts)
    assert found["logged"] == len(duckdb.sql(f"FROM '{market}/logs/requests/*/*.parquet' WHERE domain = 'search'"))
    assert found["written"] == sum(split["search"]["requests"] for split in manifest["rows"].values())


def test_events_add_up_and_are_credited_once(market, manifest):
    for task, kind in {"click": "click", "conversion": "purchase"}.items():
        sides = [dict(manifest["events"][task][side]) for side in ("in_domain", "cross_domain")]
        total = sum(side.pop("events") for side in sides)
        assert total == sum(sum(side.values()) for side in sides)
        logged = duckdb.sql(
            f"FROM '{market}/logs/events/*/*.parquet' WHERE type = '{kind}' AND "
            "CAST(epoch_us(ts) // 86400000000 AS INTEGER) + DATE '1970-01-01' IN "
            f"({', '.join(repr(d) for d in written_days())})"
        )
        assert total == len(logged)
        landed = total - sum(side.get("unattributed", 0) for side in sides)
        positives = sum(
            count
            for split in manifest["rows"].values()
            for domain in split.values()
            for name, count in domain.items()
            if name.startswith(f"{task}.")
        )
        assert positives <= landed  # absorbed events, and those that landed on days that are not written


def written_days():
    return [f"2026-01-{day:02d}" for day in (7, 8, 9, 10, 11, 12, 15, 16)]


def test_lists_are_parallel_and_labels_agree_with_their_source(rows, candidates):
    for names, spine in ((LISTS, "item"), (("behaviour_item", "behaviour_ts", "behaviour_type"), "behaviour_index")):
        for name in names:
            assert [len(x) for x in rows[name]] == [len(x) for x in rows[spine]]
    for task in ("click", "conversion"):
        assert ((candidates[task] == 1) == (candidates[f"{task}_source"] != LabelSource.NONE)).all()
    pseudo = candidates["sampling"] == Sampling.PSEUDO_POSITIVE
    assert (candidates["click_source"][pseudo] == LabelSource.PSEUDO).all()
    assert (candidates["click"][candidates["sampling"] == Sampling.PSEUDO_NEGATIVE] == 0).all()
    unexposed = candidates["sampling"] == Sampling.UNEXPOSED
    assert set(candidates["click_source"][unexposed]) <= {LabelSource.NONE, LabelSource.UNEXPOSED}


def test_in_domain_clicks_are_those_of_the_log(market, rows, candidates):
    clicks = duckdb.sql(f"""
        SELECT DISTINCT e.request_id, e.item_id FROM '{market}/logs/events/*/*.parquet' e
        JOIN '{market}/logs/requests/*/*.parquet' r USING (request_id)
        WHERE e.type = 'click' AND e.domain = 'search' AND e.ts - r.ts <= INTERVAL 24 HOUR""").fetchall()
    ids = rows["request_id"].to_pylist()
    expected = {(request, hash64(item)) for request, item in clicks if request in set(ids)}
    own = candidates["click_source"] == LabelSource.IN_DOMAIN
    found = {(ids[row], item) for row, item in zip(candidates["row"][own], candidates["item_hash"][own], strict=True)}
    assert found == expected and expected


def test_pseudo_requests_keep_their_domain_and_have_a_past_query(market, rows):
    searched = duckdb.sql(f"SELECT query, min(ts) FROM '{market}/logs/requests/*/*.parquet' GROUP BY query").fetchall()
    first = dict(searched)
    pseudo = [
        row for row in rows.select(["query_rule", "domain_index", "query", "ts"]).to_pylist() if row["query_rule"]
    ]
    assert {row["query_rule"] for row in pseudo} == set(QueryRule) - {QueryRule.TYPED}
    assert {row["domain_index"] for row in pseudo} == {1, 2}
    assert all(first[row["query"]] < row["ts"] for row in pseudo)


def test_real_and_pseudo_rows_have_the_features_of_the_store_as_of_their_time(market, rows):
    """User and item columns of some rows of each kind against retrieval, one by one."""
    rules = np.array(rows["query_rule"])
    chosen = np.concatenate([np.nonzero(rules == rule)[0][:12] for rule in QueryRule])
    some = rows.take(pa.array(chosen))
    users = pa.table({"row_id": np.arange(len(some)), "user_id": some["user_id"], "ts": some["ts"]})
    found = request_features(market / "features", users)
    assert found["user_clicks_7d"].to_pylist() == some["user_clicks_7d"].to_pylist()
    assert hash_many(found["user_gender"].to_pylist()).tolist() == some["user_gender"].to_pylist()
    for ids, hashes in zip(found["behaviour_item_id"].to_pylist(), some["behaviour_item"].to_pylist(), strict=True):
        assert hash_many(ids).tolist() == hashes
    names = pq.read_table(market / "features" / "items.parquet")["item_id"].to_pylist()
    firsts = [names[items[0].as_py() - 1] for items in some["item"]]
    midnights = [datetime.combine(row.as_py(), time.min, UTC) for row in some["ts"]]
    keys = pa.table(
        {"row_id": np.arange(len(some)), "item_id": firsts, "ts": pa.array(midnights, pa.timestamp("us", "UTC"))}
    )
    items = item_day_features(market / "features", keys)
    for name in ("item_price", "item_clicks_7d", "item_ctr_7d"):
        assert items[name].to_pylist() == [values[0] for values in some[name].to_pylist()]
    assert hash_many(items["item_brand"].to_pylist()).tolist() == [v[0] for v in some["item_brand"].to_pylist()]


def test_rows_before_the_test_split_use_nothing_of_it(market, rows, spark, tmp_path):
    """Without any request or event from the first test day on, earlier rows stay as they are, to the bit.

    The second build also runs on other partitions, so the equality shows that these change nothing either.
    """
    boundary = "2026-01-15"
    shutil.copytree(market / "logs", tmp_path / "logs")
    for folder in (tmp_path / "logs").glob("*/day=*"):
        if folder.name.removeprefix("day=") >= boundary:
            shutil.rmtree(folder)
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        build_samples(CONFIG, tmp_path / "logs", market / "features", tmp_path / "samples", spark)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    early = [day < boundary for day in rows["day"].to_pylist()]
    cut = read_rows(tmp_path / "samples")
    assert cut.equals(rows.filter(pa.array(early)))


@pytest.mark.slow
def test_an_event_that_belongs_to_a_day_between_the_splits_labels_no_written_row(market, rows, spark, tmp_path):
    """Two users click in the feed on the last validation day and buy in the gap; one clicks once more in between.

    Only the other's purchase goes to the written pseudo-request; the first belongs to a click that is not written.
    """
    again, once = duckdb.sql(f"""
        WITH requests AS (FROM '{market}/logs/requests/*/*.parquet'), known AS (
            SELECT user_id, item_id FROM '{market}/logs/events/*/*.parquet'
            UNION SELECT user_id, item_id FROM '{market}/logs/exposures/*/*.parquet' JOIN requests USING (request_id)
            UNION SELECT user_id, unnest(item_ids) FROM '{market}/logs/candidates/*/*.parquet'
                JOIN requests USING (request_id))
        SELECT one.user_id, min(i.item_id), min(one.request_id), min(two.request_id)
        FROM requests one JOIN requests two USING (user_id) JOIN '{market}/logs/items.parquet' i
            ON (one.user_id, i.item_id) NOT IN (FROM known) AND i.valid_from < DATE '2026-01-01'
        WHERE one.domain = 'recommendation' AND two.domain = 'recommendation'
            AND one.ts::DATE = DATE '2026-01-12' AND two.ts::DATE = DATE '2026-01-13'
        GROUP BY one.user_id ORDER BY one.user_id LIMIT 2""").fetchall()
    acts = [(again, 12, 2, "click"), (again, 13, 3, "click"), (again, 13, 3, "purchase"), (once, 12, 2, "click")]
    acts.append((once, 13, 3, "purchase"))
    asked = dict(duckdb.sql(f"SELECT request_id, ts FROM '{market}/logs/requests/*/*.parquet'").fetchall())
    shutil.copytree(market / "logs", tmp_path / "logs")
    for day in (12, 13):
        file = next((tmp_path / "logs" / "events" / f"day=2026-01-{day}").glob("*.parquet"))
        table = pq.ParquetFile(file).read()
        more = [
            {
                "event_id": f"added-{n}", "user_id": who[0], "item_id": who[1], "domain": "recommendation",
                "type": kind, "request_id": who[place], "ts": asked[who[place]] + timedelta(minutes=n),
            }
            for n, (who, of_day, place, kind) in enumerate(acts) if of_day == day
        ]  # fmt: skip
        pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(more, schema=table.schema)]), file)
    build_samples(CONFIG, tmp_path / "logs", market / "features", tmp_path / "samples", spark)
    found = read_rows(tmp_path / "samples")
    added = pa.array([name.startswith("pseudo:added") for name in found["request_id"].to_pylist()])
    assert found.filter(pc.invert(added)).equals(rows)
    bought = {row["request_id"]: row["conversion_source"][0] for row in found.filter(added).to_pylist()}
    assert bought == {"pseudo:added-0": LabelSource.NONE, "pseudo:added-3": LabelSource.PSEUDO}


def tell(flags: np.ndarray, kind: np.ndarray) -> float:
    """Cross-validated AUC of a tree that sees only what is missing."""
    tree = DecisionTreeClassifier(max_depth=6, min_samples_leaf=20, random_state=0)
    return float(roc_auc_score(kind, cross_val_predict(tree, flags, kind, cv=4, method="predict_proba")[:, 1]))


def missing(column: pa.ChunkedArray) -> np.ndarray:
    """Whether a scalar is null or the id 0, or a list is empty."""
    if pa.types.is_list(column.type):
        return np.array([len(value) == 0 for value in column])
    ids = pa.types.is_integer(column.type)
    return np.array([value is None or (ids and value == 0) for value in column.to_pylist()])


def test_what_is_missing_does_not_tell_exposed_from_unexposed(market, rows, candidates):
    spec = SampleSpec.load(market / "samples")
    search = np.isin(candidates["sampling"], [Sampling.EXPOSED, Sampling.UNEXPOSED])
    columns = [rows[f.name].combine_chunks().flatten() for f in spec.select("candidate")]
    flags = np.stack([missing(pa.chunked_array([column])) for column in columns], axis=1)[search]
    assert abs(tell(flags, candidates["sampling"][search] == Sampling.UNEXPOSED) - 0.5) < 0.03


def test_what_is_missing_does_not_tell_pseudo_from_real(market, rows):
    spec = SampleSpec.load(market / "samples")
    features = (*spec.select("request"), *spec.select("behaviour"))
    flags = np.stack([missing(rows[f.name]) for f in features], axis=1)
    pseudo = np.array(rows["query_rule"]) != QueryRule.TYPED
    assert abs(tell(flags, pseudo) - 0.5) < 0.03


def test_what_is_missing_of_a_request_does_not_tell_the_label_within_a_domain(market, rows):
    spec = SampleSpec.load(market / "samples")
    flags = np.stack([missing(rows[f.name]) for f in spec.select("request") if f.block == "context"], axis=1)
    labels = rows[spec.tasks[0]].combine_chunks()
    request_of = np.repeat(np.arange(len(rows)), labels.value_lengths().to_numpy())
    label, domain = labels.flatten().to_numpy() > 0, np.array(rows["domain_index"])[request_of]
    for number in range(1, len(spec.domains)):
        of_domain = flags[request_of][domain == number]
        assert abs(tell(of_domain, label[domain == number]) - 0.5) < 0.02, spec.domains[number]


def test_the_manifest_traces_the_rows(market, rows, manifest):
    assert read_json(market / "samples" / "manifest.json") == manifest
    assert manifest["skipped"] == [] and manifest["seed"] == CONFIG.seed and manifest["table1_of"] == "train"
    assert sum(d["requests"] for split in manifest["rows"].values() for d in split.values()) == len(rows)
    stages = manifest["table1"]
    assert stages[0]["requests_x"] == stages[0]["samples_x"] == stages[0]["click_positives_x"] == 1.0
    assert stages[1]["samples_x"] == pytest.approx(3.0, abs=0.1)  # 20 unexposed wanted of the 20 there are
    assert stages[2]["click_positives"] > stages[1]["click_positives"]
    assert stages[3]["requests"] > stages[2]["requests"]
    assert not list(market.glob(".scratch-*")) and not list(market.glob(".partial-*"))


def test_a_source_with_one_domain_and_no_lists_text_or_users_runs_and_says_what_was_skipped(market, spark, tmp_path):
    logs = tmp_path / "logs"
    shutil.copytree(market / "logs", logs, ignore=shutil.ignore_patterns("candidates", "truth"))
    for table in ("requests", "exposures", "events"):
        searches = f"SELECT request_id FROM '{market}/logs/requests/*/*.parquet' WHERE domain = 'search'"
        for file in (logs / table).glob("*/*.parquet"):
            kept = duckdb.sql(
                f"FROM read_parquet('{file}', hive_partitioning = false) WHERE request_id IN ({searches})"
            )
            pq.write_table(kept.to_arrow_table(), file)
    raw = read_json(logs / "description.json")
    has = {f"has_{name}": False for name in ("candidates", "text", "embeddings", "users")}
    write_json(logs / "description.json", raw | has | {"domains": ["search"], "profile": [], "context": []})
    build_features(CONFIG, logs, tmp_path / "features")
    manifest = build_samples(CONFIG, logs, tmp_path / "features", tmp_path / "samples", spark)
    assert [entry["stage"] for entry in manifest["skipped"]] == [
        "unexposed expansion", "cross-domain attribution", "searchification",
    ]  # fmt: skip
    rows = read_rows(tmp_path / "samples")
    assert rows.drop_columns("day").schema.equals(row_schema(SampleSpec.load(tmp_path / "samples")))
    assert {kind for kinds in rows["sampling"].to_pylist() for kind in kinds} == {Sampling.EXPOSED}
    assert [stage["samples_x"] for stage in manifest["table1"]] == [1.0] * 4
    assert manifest["table1"][3]["click_positives"] == manifest["table1"][0]["click_positives"] > 0


def test_where_nobody_typed_a_query_there_is_an_empty_table_of_queries(market, tmp_path):
    spec = SampleSpec.load(market / "features")
    write_query_days(tmp_path / "kind=query", market / "features", spec, tmp_path / "out")  # which Spark did not write
    found = read_day(tmp_path / "out", "2026-01-07")
    assert len(found) == 0 and {"query", "query_text", "query_searches_7d"} <= set(found.column_names)


def test_skipped_stages_name_what_is_missing():
    whole = LogDescription("x", ("search", "feed"), ("s",), {"click": "click"})
    assert skipped_stages(whole, CONFIG.samples) == {}
    off = CONFIG.samples.model_copy(update={"unexposed_per_exposed": 0})
    assert skipped_stages(whole, off) == {"unexposed expansion": "samples.unexposed_per_exposed is 0"}
    blind = LogDescription("x", ("search", "feed"), ("s",), {"click": "click"}, has_text=False, has_embeddings=False)
    assert skipped_stages(blind, CONFIG.samples) == {"searchification": "the source has no text and no embeddings"}


def test_a_log_that_is_too_short_is_refused_when_its_features_are_built(market, tmp_path):
    short = CONFIG.model_copy(update={"samples": CONFIG.samples.model_copy(update={"warmup_days": 30})})
    with pytest.raises(DataError, match=r"the log has 14 days .* lower these keys"):
        build_features(short, market / "logs", tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_split_by_other_settings_than_that_of_the_features_is_refused_before_anything_starts(market, tmp_path):
    other = CONFIG.model_copy(update={"samples": CONFIG.samples.model_copy(update={"valid_days": 2})})
    with pytest.raises(DataError, match=r"samples.valid_days is 2, and .* built with 1: .* run it again"):
        build_samples(other, market / "logs", market / "features", tmp_path / "samples")
    with pytest.raises(DataError, match=r"no file .*splits.json"):
        build_samples(CONFIG, market / "logs", tmp_path, tmp_path / "samples")


def test_features_of_other_logs_are_refused_and_leave_nothing_behind(market, spark, tmp_path):
    logs = tmp_path / "logs"
    shutil.copytree(market / "logs", logs)
    raw = read_json(logs / "description.json")
    write_json(logs / "description.json", raw | {"tasks": {"click": "click"}})
    with pytest.raises(DataError, match="made from other logs"):
        build_samples(CONFIG, logs, market / "features", tmp_path / "samples", spark)
    assert not (tmp_path / "samples").exists() and not list(tmp_path.glob(".scratch-*"))


def test_a_log_without_search_clicks_says_what_to_look_for(market, spark, tmp_path):
    logs = tmp_path / "logs"
    shutil.copytree(market / "logs", logs)
    fewer = {f"has_{name}": False for name in ("candidates", "text", "embeddings")}  # whose stages change nothing here
    write_json(logs / "description.json", read_json(logs / "description.json") | fewer)
    for file in (logs / "events").glob("*/*.parquet"):
        table = pq.ParquetFile(file).read()
        position = table.schema.get_field_index("request_id")
        pq.write_table(table.set_column(position, "request_id", pa.nulls(len(table), pa.string())), file)
    with pytest.raises(DataError, match=r"no positive click in search .* must name their request"):
        build_samples(CONFIG, logs, market / "features", tmp_path / "samples", spark)
