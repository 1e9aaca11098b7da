import pytest

from monitoring.decision import decide, guardrail
from monitoring.metrics import BY_NAME


def row(name="clicks_per_user", lift=0.0, interval=(-0.01, 0.01), p=0.5, always=None, mde=0.02, **more):
    metric = BY_NAME[name]
    given = {
        "name": name,
        "label": metric.label,
        "better": metric.better,
        "lift": lift,
        "interval": list(interval) if interval else None,
        "p": p,
        "mde": mde,
    }
    given |= {"users_needed": 1000, "withheld": None, "always_valid_withheld": "burn-in", "always_valid": None}
    if always:
        given |= {"always_valid": {"interval": list(always), "p": 0.5}, "always_valid_withheld": None}
    return given | more


def verdict(primary, guardrails=(), complete=True, blocks=(), mode="A/B", rows=None, early="harm"):
    return decide(
        mode=mode,
        blocks=blocks,
        primary=primary,
        rows=rows or [primary],
        guardrails=guardrails,
        complete=complete,
        days=(3, 3),
        alpha=0.05,
        target=0.05,
        early=early,
    )["verdict"]


@pytest.mark.parametrize(
    "name, interval, complete, expected",
    [
        ("ctr", (-0.04, 0.02), True, "pass"),
        ("ctr", (-0.06, 0.02), True, "open"),
        ("ctr", (-0.20, -0.06), True, "breach"),
        ("ctr", (-0.20, -0.06), False, "open"),  # a fixed-horizon interval may not stop an experiment early
        ("latency_p99_ms", (-0.30, 0.04), True, "pass"),  # lower is better: only growth counts
        ("latency_p99_ms", (0.06, 0.30), True, "breach"),
        ("latency_p99_ms", (0.00, 0.30), True, "open"),
    ],
)
def test_a_guardrail_is_judged_by_its_whole_interval(name, interval, complete, expected):
    assert guardrail(row(name, interval=interval), 0.05, complete)["status"] == expected


def test_an_always_valid_interval_may_stop_early():
    early = row("ctr", interval=(-0.2, -0.06), always=(-0.3, -0.055))
    assert guardrail(early, 0.05, complete=False)["status"] == "breach"


def test_a_withheld_guardrail_is_open_with_the_reason():
    judged = guardrail(row("ctr", interval=None, withheld="no clicks in either variant"), 0.05, complete=True)
    assert judged["status"] == "open" and "no clicks" in judged["statement"]


def test_every_verdict():
    better, worse, flat = row(lift=0.1, p=0.01), row(lift=-0.1, p=0.01), row()
    fine, breach, still = ({"status": s, "statement": s} for s in ("pass", "breach", "open"))
    assert verdict(better, [fine]) == "ship"
    assert verdict(better, [fine], complete=False) == "keep running"
    assert verdict(better, [still]) == "keep running"
    assert verdict(better, [breach]) == "roll back"
    assert verdict(better, [breach], complete=False) == "roll back"
    assert verdict(worse) == "roll back"
    assert verdict(worse, complete=False) == "keep running"
    assert verdict(row(lift=-0.1, p=0.01, always=(-0.2, -0.01)), complete=False) == "roll back"
    assert verdict(row(mde=0.2)) == "underpowered"
    assert verdict(flat) == "roll back"  # a lift of the target size would have been seen
    assert verdict(better, [fine], blocks=["sample ratio"]) == "invalid"
    assert verdict(row(p=None, interval=None, lift=None, withheld="no clicks")) == "keep running"


def test_a_gain_ends_an_experiment_early_only_where_its_stop_rule_says_so_and_always_valid_intervals_agree():
    winning, still = row(lift=0.1, p=0.001, always=(0.01, 0.2)), {"status": "open", "statement": "open"}
    assert verdict(winning, complete=False) == "keep running"
    assert verdict(winning, complete=False, early="either") == "ship"
    assert verdict(winning, [still], complete=False, early="either") == "keep running"
    assert verdict(row(lift=0.1, p=0.001), complete=False, early="either") == "keep running"


def test_direction_of_the_primary_metric_counts():
    slower = row("change_query_rate", lift=0.1, interval=(0.05, 0.15), p=0.001)
    assert verdict(slower) == "roll back"
    assert verdict(row("change_query_rate", lift=-0.1, interval=(-0.15, -0.05), p=0.001)) == "ship"


def test_an_a_a_never_ships_and_names_a_difference():
    apart = row(lift=0.1, p=0.0001)
    result = decide(
        mode="A/A",
        blocks=(),
        primary=apart,
        rows=[apart],
        guardrails=[],
        complete=True,
        days=(3, 3),
        alpha=0.05,
        target=0.05,
    )
    assert result["verdict"] == "keep running" and "suspect assignment or logging" in result["reason"]
