"""Bad input at scale: each fault is counted under its reason, the totals add up to the input, and the rest goes on."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.check import check_logs
from features.ingest import ingest
from tests.features.conftest import SMALL
from tests.features.log_folder import DESCRIPTION, FIRST_DAY, random_logs
from uniscale.config import load_config
from uniscale.errors import DataError
from uniscale.logs import TABLES
from uniscale.sections import IngestConfig

RULES = IngestConfig(max_quarantine_share=0.2, max_query_length=256)
EVERY = 100  # one row in so many is corrupt
SHIFTED, REPEATED = 6, 9  # days after the first


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
        if row["item_id"] in ("i3", "i4"):
            row["embedding"] = None
    reasons = {name: Counter() for name in TABLES}
    for number, row in enumerate(logs.events):
        if day_of(row) == SHIFTED and number % EVERY:  # written in local time, eight hours behind
            row["ts"] -= timedelta(hours=8)
            reasons["events"]["happened before its request"] += 1
    for name, fault, reason in (
        ("events", {"user_id": None}, "user_id is null"),
        ("exposures", {"position": 0}, "position is below 1"),
    ):
        for row in getattr(logs, name)[::EVERY]:
            row.update(fault)
            reasons[name][reason] += 1
    logs.events += [dict(row) for row in logs.events if day_of(row) == REPEATED and row["user_id"] is not None]
    reasons["events"]["duplicate of event_id"] = len(logs.events) - len({row["event_id"] for row in logs.events})
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
        assert counts["rows_in"] == len(getattr(logs, name)) == counts["rows_out"] + counts["quarantined"]
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
    ingest(RULES, spoilt[0].write(tmp_path / "logs"), tmp_path / "clean")
    build_features(config, tmp_path / "clean", tmp_path / "features")
    manifest = build_samples(config, tmp_path / "clean", tmp_path / "features", tmp_path / "samples", spark)
    found = manifest["search_requests"]
    assert found["logged"] == sum(found[part] for part in ("warm_up", "immature", "without_exposures", "written")) > 0
    for task in manifest["events"].values():
        for side in (task["in_domain"], task["cross_domain"]):
            assert side["events"] == sum(n for name, n in side.items() if name != "events")
    assert manifest["searchification"]["without_similar_negative"] > 0
    items = pq.read_table(tmp_path / "samples" / "items.parquet")
    blank = items.filter(pc.is_in(items["item_id"], pa.array(["i3", "i4"])))
    assert {value for vector in blank["content"].to_pylist() for value in vector} == {0.0}
