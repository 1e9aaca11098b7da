"""Bad input at scale: each fault is counted under its reason, the totals add up to the input, and the rest goes on."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from features.check import check_logs
from features.ingest import ingest
from tests.features.conftest import SMALL
from tests.features.log_folder import DESCRIPTION, FIRST_DAY, random_logs
from uniscale.config import load_config
from uniscale.errors import DataError
from uniscale.logs import TABLES
from uniscale.samples import Sampling
from uniscale.sections import IngestConfig

RULES = IngestConfig(max_quarantine_share=0.2, max_query_length=256)
EVERY = 100  # one row in so many is corrupt
SHIFTED, REPEATED = 6, 9  # days after the first
OF_CORRUPT = "refers to a quarantined row of items"
CORRUPT, BLANK = "i6", ("i3", "i4")  # items: one whose only version is refused, two without embedding


def day_of(row):
    return (row["ts"] - FIRST_DAY).days


@pytest.fixture(scope="module")
def spoilt():
    """Logs with every fault, and the reasons that each table has to give, with their counts."""
    logs = replace_domains(random_logs(users=200, items=80, requests=2000))
    owner = {row["request_id"]: row for row in logs.requests}
    for number, row in enumerate(logs.requests):  # one user has a tenth of all events
        if number % 10 == 0:
            row["user_id"] = "u0"
    for row in logs.events:
        row["user_id"] = owner[row["request_id"]]["user_id"]
    for row in logs.items:
        if row["item_id"] in BLANK:
            row["embedding"] = None
        if row["item_id"] == CORRUPT:
            row["price"] = -1.0
    reasons = {name: Counter() for name in (*TABLES, "listed_items")}
    reasons["items"]["price is below 0"] = 1
    reasons["listed_items"][OF_CORRUPT] = sum(CORRUPT in row["item_ids"] for row in logs.candidates)
    for number, row in enumerate(logs.events):
        if day_of(row) == SHIFTED and number % EVERY:  # written in local time, eight hours behind
            row["ts"] -= timedelta(hours=8)
            reasons["events"]["happened before its request"] += row["item_id"] != CORRUPT
    for name, fault, reason in (
        ("events", {"user_id": None}, "user_id is null"),
        ("exposures", {"position": 0}, "position is below 1"),
    ):
        for row in getattr(logs, name)[::EVERY]:
            row.update(fault)
            reasons[name][reason] += 1
    logs.events += [dict(row) for row in logs.events if day_of(row) == REPEATED and row["user_id"] is not None]
    known = [row["event_id"] for row in logs.events if row["item_id"] != CORRUPT]
    reasons["events"]["duplicate of event_id"] = len(known) - len(set(known))
    for name, field in (("events", "user_id"), ("exposures", "position")):
        reasons[name][OF_CORRUPT] = sum(row["item_id"] == CORRUPT and bool(row[field]) for row in getattr(logs, name))
    again = [dict(row) for row in logs.requests if day_of(row) == REPEATED]
    logs.requests += again
    reasons["requests"]["duplicate of request_id"] = len(again)
    return logs, reasons


def replace_domains(logs):
    """The same logs, whose description promises a third domain that has no row."""
    logs.description = replace(DESCRIPTION, domains=(*DESCRIPTION.domains, "ads"))
    return logs


def test_every_fault_is_counted_and_the_totals_add_up(spoilt, tmp_path):
    logs, reasons = spoilt
    report = ingest(RULES, logs.write(tmp_path / "logs"), tmp_path / "clean")
    assert sum(reasons["events"].values()) > len(logs.events) / 20
    for name, counts in report["tables"].items():
        assert counts["reasons"] == dict(reasons[name])
        rows = sum(len(row["item_ids"]) for row in logs.candidates) if name not in TABLES else len(getattr(logs, name))
        assert counts["rows_in"] == rows == counts["rows_out"] + counts["quarantined"]
    assert "no row of requests has domain ads" in report["warnings"]


def test_the_check_explains_the_same_faults(spoilt, tmp_path):
    logs, reasons = spoilt
    config = load_config(overrides=SMALL)
    now = datetime(2026, 2, 1, tzinfo=UTC)
    result = check_logs(RULES, config.samples, logs.write(tmp_path / "logs"), now)
    assert result["broken"] == "" and result["split"]["fits"]
    assert result["tables"]["events"]["reasons"] == dict(reasons["events"])


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path):
    config = load_config(overrides=SMALL)
    with pytest.raises(DataError, match=r"no folder .*nowhere: give the path of a log folder"):
        check_logs(RULES, config.samples, tmp_path / "nowhere", datetime(2026, 2, 1, tzinfo=UTC))


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_the_rest_becomes_samples(spoilt, spark, tmp_path):
    from features.build import build_features
    from features.es3.build import build_samples

    config = load_config(overrides=SMALL)
    clean, samples = tmp_path / "clean", tmp_path / "samples"
    ingested = ingest(RULES, spoilt[0].write(tmp_path / "logs"), clean)
    build_features(config, clean, tmp_path / "features")
    manifest = build_samples(config, clean, tmp_path / "features", samples, spark)
    assert manifest["quarantine"] == ingested and "no row of requests has domain ads" in ingested["warnings"]

    def ask(query):
        views = [("log_" + name, clean / name / "*" / "*.parquet") for name in ("requests", "exposures", "events")]
        views += [("rows", samples / "rows" / "*" / "*" / "*.parquet"), ("items", samples / "items.parquet")]
        with duckdb.connect() as connection:
            for name, files in views:
                connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{files}', hive_partitioning = true)")
            shown = "SELECT *, unnest(item) AS i, unnest(sampling) AS kind FROM rows"
            connection.execute(f"CREATE VIEW shown AS SELECT * FROM ({shown}) JOIN items ON i = items.index")
            return connection.execute(query).fetchall()

    searches = manifest["search_requests"]
    assert (
        searches["logged"]
        == sum(searches[part] for part in ("warm_up", "immature", "without_exposures", "written"))
        == ask("SELECT count(*) FROM log_requests WHERE domain = 'search'")[0][0]
        > 0
    )
    written = "day IN (SELECT DISTINCT day FROM rows)"
    for task, kind in DESCRIPTION.tasks.items():
        sides = [manifest["events"][task][side] for side in ("in_domain", "cross_domain")]
        for side in sides:
            assert side["events"] == sum(n for name, n in side.items() if name != "events")
        logged = ask(f"SELECT count(*) FROM log_events WHERE type = '{kind}' AND {written}")[0][0]
        assert sum(side["events"] for side in sides) == logged
    counted = [domain for split in manifest["rows"].values() for domain in split.values()]
    totals = [tuple(sum(counts[name] for counts in counted) for name in ("requests", "samples"))]
    assert ask("SELECT count(*), sum(len(item)) FROM rows") == totals and manifest["rows"]["train"].keys() == {
        "search", "recommendation",
    }  # fmt: skip

    kinds = dict(ask("SELECT kind, count(*) FROM shown WHERE domain = 'search' GROUP BY 1"))
    shown_in = "log_exposures SEMI JOIN (FROM rows WHERE query_rule = 0) USING (request_id)"
    asked = ask(f"SELECT count(*) FROM {shown_in}")[0][0]
    assert kinds[Sampling.EXPOSED] == asked
    wanted = config.samples.unexposed_per_exposed * asked
    assert kinds[Sampling.UNEXPOSED] + searches["unexposed_short"] == wanted

    assert ask(f"SELECT count(*) FROM items WHERE item_id = '{CORRUPT}'") == [(0,)]
    of_blank = f"FROM shown WHERE item_id IN {BLANK}"
    blank = dict(ask(f"SELECT kind, count(*) {of_blank} GROUP BY 1"))
    assert blank.keys() == {Sampling.EXPOSED, Sampling.UNEXPOSED, Sampling.PSEUDO_POSITIVE}  # like nothing, yet there
    assert ask(f"SELECT max(len(item)) {of_blank} AND kind = {Sampling.PSEUDO_POSITIVE:d}") == [(1,)]
    heavy = ask("SELECT max(len(behaviour_index)), count(*) FROM rows WHERE user_id = 'u0'")[0]
    assert heavy[0] == config.features.max_behaviours and heavy[1] > len(spoilt[0].requests) / 20
