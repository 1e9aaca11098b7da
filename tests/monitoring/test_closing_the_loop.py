import itertools
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.next_day import mature_days, write_next_days
from monitoring.retraining import Policy, choose
from tests.monitoring.ab_logs import START, rewrite, write_experiment
from uniscale.errors import DataError
from uniscale.logs import TABLES, LogDescription

POLICY = Policy(max_age_days=14, drift_days=2, cooldown_days=3, budget=3, budget_days=30, min_new_days=1)
TODAY = date(2026, 3, 30)


def test_a_day_is_mature_when_its_whole_window_is_over():
    days = ["2026-03-02", "2026-03-03"]
    at = datetime(2026, 3, 6, tzinfo=UTC)  # 2 March ends on the 3rd at 00:00, plus 3 days
    assert mature_days(days, at, 3) == ["2026-03-02"]
    assert mature_days(days, at - timedelta(seconds=1), 3) == []
    assert mature_days(days, at + timedelta(days=1), 3) == days


@pytest.fixture
def live(tmp_path):
    paths = write_experiment(tmp_path, users=80, days=4, seed=81)
    ids = [f"u81-{n}" for n in range(80)]
    pq.write_table(pa.table({"user_id": ids}), paths["logs"] / "users.parquet")
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(8)]}), paths["logs"] / "items.parquet")
    return paths


def test_mature_days_become_training_days_in_the_contract(live, tmp_path):
    rewrite(live["serving_log"], lambda rows: rows + rows[:3])  # a repeated row counts once
    found = write_next_days(live["serving_log"], live["logs"], tmp_path / "out", START + timedelta(days=5), 3)
    assert found["days"] == ["2026-03-02", "2026-03-03"] and found["waiting"] == ["2026-03-04", "2026-03-05"]
    served = [r for r in pq.read_table(live["serving_log"]).to_pylist() if r["ts"] < START + timedelta(days=2)]
    ids = {row["request_id"] for row in served}
    assert LogDescription.load(tmp_path / "out") == LogDescription.load(live["logs"])
    for name in ("requests", "candidates", "exposures", "events"):
        table = pq.read_table(tmp_path / "out" / name, partitioning=None)
        assert table.num_rows == found["rows"][name] and set(table["request_id"].to_pylist()) <= ids
        assert table.select([c.name for c in TABLES[name].columns]).schema.types == [
            c.type for c in TABLES[name].columns
        ]
    assert found["rows"]["requests"] == found["rows"]["candidates"] == len(ids)
    events = [e for e in pq.read_table(live["logs"] / "events").to_pylist() if e["request_id"] in ids]
    assert found["rows"]["events"] == len(events) > 0


def test_a_late_feed_holds_days_back(live, tmp_path):
    now = START + timedelta(days=9)
    found = write_next_days(live["serving_log"], live["logs"], tmp_path / "a", now, 1, START + timedelta(days=3))
    assert found["days"] == ["2026-03-02", "2026-03-03"]
    with pytest.raises(DataError, match="no day is mature"):
        write_next_days(live["serving_log"], live["logs"], tmp_path / "b", START + timedelta(days=2), 3)
    assert not (tmp_path / "b").exists()


def days_ago(*numbers):
    return [TODAY - timedelta(days=n) for n in numbers]


@pytest.mark.parametrize(
    "trained, verdicts, more, train, said",
    [
        ([], [], {}, True, "no model"),
        (days_ago(5), ["quiet"] * 5, {}, False, "nothing asks"),
        (days_ago(14), ["quiet"], {}, True, "14 days old"),
        (days_ago(5), ["quiet", "drift"], {}, False, "nothing asks"),
        (days_ago(5), ["drift", "drift"], {}, True, "drift in the last 2"),
        (days_ago(5), ["drift", "drift", "warn"], {}, False, "nothing asks"),
        (days_ago(2), ["drift", "drift"], {}, False, "2 days ago"),
        (days_ago(20, 12, 5), ["drift", "drift"], {}, False, "are the budget"),
        (days_ago(31, 12, 5), ["drift", "drift"], {}, True, "drift"),
        (days_ago(14), [], {"new_days": 0}, False, "only 0 new"),
        (days_ago(14), [], {"labels_late": True}, False, "feed is late"),
        (days_ago(14), [], {"experiment_running": True}, False, "experiment is running"),
    ],
)
def test_what_asks_for_a_training_and_what_forbids_it(trained, verdicts, more, train, said):
    found = choose(POLICY, TODAY, trained, verdicts, **({"new_days": 5} | more))
    assert found.train == train and said in found.why


def test_constant_drift_cannot_spend_more_than_the_budget():
    trained, spent = [], []
    for n in range(120):
        today = TODAY + timedelta(days=n)
        if choose(POLICY, today, trained, ["drift"] * 9, new_days=3).train:
            trained.append(today)
        spent.append(sum(day > today - timedelta(days=30) for day in trained))
    assert max(spent) == POLICY.budget and len(trained) == 12
    assert min(b - a for a, b in itertools.pairwise(trained)) >= timedelta(days=POLICY.cooldown_days)
