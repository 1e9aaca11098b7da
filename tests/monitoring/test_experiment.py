import json
import math
from datetime import timedelta

import pytest

from monitoring.definition import definition_from, pipeline_definition
from monitoring.experiment import analyse, analyse_logs
from tests.monitoring.ab_logs import START, config, rewrite, write_experiment
from uniscale.assignment import assign
from uniscale.errors import ConfigError, DataError
from uniscale.hashing import hash64


def run(folder, paths, **changes):
    result = analyse(config(**changes), out=folder / "out", **paths)
    assert json.loads((folder / "out" / "experiment.json").read_text()) == json.loads(json.dumps(result))
    assert no_nan(result)
    assert (folder / "out" / "experiment.html").stat().st_size > 5000
    return result


def no_nan(value):
    if isinstance(value, dict):
        return all(no_nan(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(no_nan(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


def row(result, name):
    return next(r for r in result["metrics"] if r["name"] == name)


def status(result, name):
    return next(c for c in result["checks"] if c["name"] == name)


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """A large true lift: every verdict about it is certain."""
    folder = tmp_path_factory.mktemp("lifted")
    paths = write_experiment(folder, users=900, lift=0.6, before_days=5, seed=1)
    return folder, paths, run(folder, paths, mde_target=0.1)


def test_counts_are_those_of_the_logs(lifted):
    import pyarrow.parquet as pq

    _, paths, result = lifted
    served = pq.read_table(paths["serving_log"]).to_pylist()
    events = pq.read_table(paths["logs"] / "events").to_pylist()
    for side in result["variants"].values():
        mine = [r for r in served if r["variant"] == side["name"]]
        assert side["requests"] == len(mine) and side["users"] == len({r["user_id"] for r in mine})
        assert side["impressions"] == 8 * len(mine)
    plain = row(result, "ctr")["unadjusted"]["lift"]
    ratios = []
    for name in ("champion", "candidate"):
        ids = {r["request_id"] for r in served if r["variant"] == name}
        ratios.append(sum(e["type"] == "click" and e["request_id"] in ids for e in events) / (8 * len(ids)))
    assert plain == pytest.approx(ratios[1] / ratios[0] - 1)


def test_a_clear_gain_ships_with_its_numbers(lifted):
    _, _, result = lifted
    assert result["verdict"] == "ship" and result["mode"] == "A/B"
    ctr = row(result, "ctr")
    assert ctr["interval"][0] < 0.6 < ctr["interval"][1]
    assert ctr["always_valid"]["interval"][0] < ctr["interval"][0] < ctr["interval"][1]
    assert ctr["cuped"] and ctr["variance_reduction"] > 0.1
    assert {g["status"] for g in result["guardrails"]} == {"pass"}
    assert result["sample_ratio"]["status"] == "pass"


def test_short_logs_withhold_lt30_and_unseen_metrics_say_why(lifted):
    _, _, result = lifted
    assert "30 days" in row(result, "lt30")["withheld"]
    assert "no advertising charges" in row(result, "rpm")["withheld"]
    for metric in result["metrics"]:
        assert (metric["lift"] is None) == (metric["withheld"] is not None)
        assert (metric["always_valid"] is None) == (metric["always_valid_withheld"] is not None)


def test_the_last_day_of_the_curve_is_the_scorecard(lifted):
    _, _, result = lifted
    last = [p for p in result["by_day"] if p["metric"] == "clicks_per_user"][-1]
    assert last["lift"] == pytest.approx(row(result, "clicks_per_user")["lift"])
    assert last["interval"] == pytest.approx(row(result, "clicks_per_user")["interval"])


def test_cuts_split_the_users(lifted):
    _, _, result = lifted
    scenarios = [r for r in result["cuts"]["rows"] if r["cut"] == "scenario"]
    assert [r["value"] for r in scenarios] == ["category", "keyword"]
    total = sum(v["users"] for v in result["variants"].values())
    assert sum(sum(r["users"]) for r in scenarios) == total  # the generator gives a user one scenario
    assert sum(sum(r["users"]) for r in result["cuts"]["rows"] if r["cut"] == "users") == total


def test_before_the_planned_end_only_harm_stops(lifted):
    folder, paths, _ = lifted
    assert run(folder, paths, days=9)["verdict"] == "keep running"


def test_a_clear_loss_rolls_back(tmp_path):
    paths = write_experiment(tmp_path, users=900, lift=-0.6, seed=2)
    early = run(tmp_path, paths, days=9)
    assert early["verdict"] == "roll back" and "CTR" in early["reason"]


def test_a_slower_candidate_breaches_the_latency_guardrail(tmp_path):
    paths = write_experiment(tmp_path, users=600, latency_lift=2.0, seed=3)
    result = run(tmp_path, paths)
    assert result["verdict"] == "roll back" and "Latency p99" in result["reason"]
    assert row(result, "latency_p99_ms")["lift"] == pytest.approx(2.0, abs=0.6)


def test_too_few_users_are_called_underpowered(tmp_path):
    result = run(tmp_path, write_experiment(tmp_path, users=300, seed=4), guardrails={})
    assert result["verdict"] == "underpowered"
    primary = row(result, "clicks_per_user")
    assert primary["mde"] > 0.05 and f"{primary['mde']:.1%}" in result["reason"]


def test_two_variants_of_one_version_are_an_a_a(tmp_path):
    result = run(tmp_path, write_experiment(tmp_path, users=400, seed=5, versions=("7", "7")))
    assert result["mode"] == "A/A" and result["verdict"] == "keep running"
    assert "one model version" in result["reason"] and "nothing to ship" in result["reason"].lower()


def test_a_log_of_another_salt_is_invalid(tmp_path):
    paths = write_experiment(tmp_path, users=200, seed=6)
    result = run(tmp_path, paths, salt="another")
    assert result["verdict"] == "invalid" and status(result, "assignment")["status"] == "block"


def test_a_skewed_split_is_invalid(tmp_path):
    settings = config(weights={"champion": 0.7, "candidate": 0.3})
    paths = write_experiment(tmp_path, users=600, seed=7, settings=settings)
    result = run(tmp_path, paths)
    assert result["sample_ratio"]["status"] == "block" and result["verdict"] == "invalid"


def test_duplicates_count_once(tmp_path):
    paths = write_experiment(tmp_path, users=200, seed=8)
    before = run(tmp_path, paths)
    for folder in (paths["serving_log"], paths["logs"] / "exposures", paths["logs"] / "events"):
        rewrite(folder, lambda rows: rows + rows[: len(rows) // 2])
    after = run(tmp_path, paths)
    assert status(after, "duplicates")["status"] == "warn" and status(before, "duplicates")["status"] == "pass"
    for metric in ("ctr", "orders_per_user", "gmv_per_user"):
        assert row(after, metric)["control"] == pytest.approx(row(before, metric)["control"])


def test_a_few_users_in_two_variants_are_left_out_and_many_block(tmp_path):
    paths = write_experiment(tmp_path, users=400, seed=9)
    settings = config()

    def swap(users):
        def change(rows):
            first = {}
            for r in rows:
                if r["user_id"] in users and first.setdefault(r["user_id"], r) is r:
                    arm = assign(r["user_id"], settings.salt, settings.weights)
                    r["variant"] = "champion" if arm == "candidate" else "candidate"
            return rows

        return change

    rewrite(paths["serving_log"], swap({f"u9-{n}" for n in range(60)}))
    result = run(tmp_path, paths)
    assert status(result, "contamination")["status"] == "block"
    assert "left out" in status(result, "contamination")["statement"] and result["verdict"] == "invalid"


def test_an_empty_variant_is_named(tmp_path):
    paths = write_experiment(tmp_path, users=100, seed=10)
    rewrite(paths["serving_log"], lambda rows: [r for r in rows if r["variant"] == "champion"])
    result = run(tmp_path, paths)
    assert result["verdict"] == "invalid" and "No user of candidate" in result["reason"]
    assert result["sample_ratio"] is None


def test_one_user_is_no_experiment(tmp_path):
    paths = write_experiment(tmp_path, users=100, seed=11)
    rewrite(paths["serving_log"], lambda rows: [r for r in rows if r["user_id"] == "u11-3"])
    assert run(tmp_path, paths)["verdict"] == "invalid"


def test_one_user_a_variant_is_withheld(tmp_path):
    paths = write_experiment(tmp_path, users=60, seed=12)
    settings, chosen = config(), {}
    for n in range(60):
        chosen.setdefault(assign(f"u12-{n}", settings.salt, settings.weights), f"u12-{n}")
    rewrite(paths["serving_log"], lambda rows: [r for r in rows if r["user_id"] in chosen.values()])
    result = run(tmp_path, paths)
    assert "at least 2 users" in row(result, "clicks_per_user")["withheld"]
    assert result["verdict"] == "keep running"


def test_no_click_at_all_is_said_and_a_silent_variant_blocks(tmp_path):
    paths = write_experiment(tmp_path, users=300, seed=13)
    served = {}
    rewrite(paths["serving_log"], lambda rows: [served.update({r["request_id"]: r["variant"]}) or r for r in rows])
    rewrite(paths["logs"] / "events", lambda rows: [e for e in rows if served[e["request_id"]] == "champion"])
    silent = run(tmp_path, paths)
    assert silent["verdict"] == "invalid" and "candidate has no clicks" in silent["reason"]
    assert row(silent, "clicks_per_user")["lift"] == -1.0
    rewrite(paths["logs"] / "events", lambda rows: [])
    nothing = run(tmp_path, paths)
    assert "no clicks in either variant" in row(nothing, "clicks_per_user")["withheld"]
    assert nothing["verdict"] == "keep running"


def test_a_logger_that_loses_one_variants_exposures_blocks(tmp_path):
    paths = write_experiment(tmp_path, users=300, seed=14)
    served = {}
    rewrite(paths["serving_log"], lambda rows: [served.update({r["request_id"]: r["variant"]}) or r for r in rows])

    def lose(rows):
        return [e for e in rows if served[e["request_id"]] == "champion" or hash64(e["request_id"]) % 4]

    rewrite(paths["logs"] / "exposures", lose)
    assert status(run(tmp_path, paths), "exposure logging")["status"] == "block"


def test_logs_of_something_else_are_invalid(tmp_path):
    paths = write_experiment(tmp_path / "a", users=100, seed=18)
    other = write_experiment(tmp_path / "b", users=100, seed=19)
    result = run(tmp_path, paths | {"logs": other["logs"]})
    assert result["verdict"] == "invalid" and "do not match" in result["reason"]


def test_a_missing_day_is_named(tmp_path):
    paths = write_experiment(tmp_path, users=200, days=4, seed=15)
    for file in (paths["serving_log"] / "day=2026-03-04").glob("*"):
        file.unlink()
    result = run(tmp_path, paths, days=4)
    assert (
        status(result, "days")["status"] == "warn"
        and "2026-03-04 (both variants)" in status(result, "days")["statement"]
    )
    assert not result["days"]["complete"]


def test_a_window_counts_from_a_users_first_request_and_waits_for_its_end(tmp_path):
    import pyarrow.parquet as pq

    paths = write_experiment(tmp_path, users=300, days=4, seed=20)
    metric = {"name": "two_days", "label": "Two days", "numerator": "requests", "better": "higher", "unit": "count"}
    metric |= {"meaning": "Requests within two days.", "window_days": 2, "covariate": False}
    raw = pipeline_definition(config(days=4), "champion", "candidate").model_dump()
    raw |= {"metrics": [metric, *raw["metrics"]], "primary": "two_days", "guardrails": {}}
    result = analyse_logs(definition_from(raw), paths["serving_log"], paths["logs"], tmp_path / "out")
    served = pq.read_table(paths["serving_log"]).to_pylist()
    days = {}
    for request in served:
        days.setdefault((request["variant"], request["user_id"]), []).append(request["ts"].date())
    first_days = sorted({day for seen in days.values() for day in seen})
    ready = {key: seen for key, seen in days.items() if min(seen) <= first_days[-2]}
    counts = [
        [sum((day - min(seen)).days < 2 for day in seen) for (arm, _), seen in ready.items() if arm == name]
        for name in ("champion", "candidate")
    ]
    found = row(result, "two_days")
    assert [found["control"], found["treatment"]] == pytest.approx([sum(c) / len(c) for c in counts])


def test_requests_before_the_last_change_of_weights_are_left_out(tmp_path):
    paths = write_experiment(tmp_path, users=200, days=3, seed=21)
    definition = pipeline_definition(config(), "champion", "candidate")
    result = analyse_logs(
        definition, paths["serving_log"], paths["logs"], tmp_path / "out", since=START + timedelta(days=1)
    )
    assert result["days"]["present"] == ["2026-03-03", "2026-03-04"]


def test_users_change_their_query(tmp_path):
    paths = write_experiment(tmp_path, users=200, seed=16)

    def follow(rows):
        later = [
            {**r, "request_id": r["request_id"] + "b", "ts": r["ts"] + timedelta(minutes=2), "query": "another"}
            for r in rows[::2]
        ]
        return rows + later

    rewrite(paths["serving_log"], follow)
    changed = row(run(tmp_path, paths), "change_query_rate")
    assert changed["withheld"] is None and changed["control"] == pytest.approx(1 / 3, abs=0.08)


def test_unknown_metrics_and_missing_logs_are_clear_errors(tmp_path):
    paths = write_experiment(tmp_path, users=50, seed=17)
    with pytest.raises(ConfigError, match="did you mean clicks_per_user"):
        run(tmp_path, paths, primary="clicks_per_usr")
    with pytest.raises(ConfigError, match="positive weight"):
        run(tmp_path, paths, weights={"champion": 1.0})
    with pytest.raises(DataError, match="no serving log in"):
        run(tmp_path, paths | {"serving_log": tmp_path / "nowhere"})
    assert not (tmp_path / "out").exists()
