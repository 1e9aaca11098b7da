"""Context features are what their definition says, for any time zone of the machine."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from features.context import context_columns, scenario_string
from uniscale.logs import TIMESTAMP


def test_hour_weekday_and_scenario_by_hand():
    times = [
        datetime(2026, 1, 5, 0, 0, tzinfo=UTC),  # a Monday
        datetime(2026, 1, 4, 23, 59, 59, 999_999, tzinfo=UTC),  # a Sunday
        datetime(1969, 12, 31, 5, tzinfo=UTC),  # before the epoch, a Wednesday
    ]
    found = context_columns(pa.array(times, TIMESTAMP), [["b", "a"], [], ["c"]])
    assert found["context_hour"].to_pylist() == ["0", "23", "5"]
    assert found["context_weekday"].to_pylist() == ["0", "6", "2"]
    assert found["context_scenario"].to_pylist() == ["a|b", "", "c"]


def test_agrees_with_the_calendar_of_python():
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=7 * step, minutes=step) for step in range(500)]
    found = context_columns(pa.array(times, TIMESTAMP), [["x"]] * 500)
    assert found["context_hour"].to_pylist() == [str(each.hour) for each in times]
    assert found["context_weekday"].to_pylist() == [str(each.weekday()) for each in times]


def test_order_of_scenarios_does_not_matter():
    assert scenario_string(["b", "a"]) == scenario_string(["a", "b"]) == "a|b"
