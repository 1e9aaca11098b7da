"""Examining logs before a run: every finding recomputed from rows that were put there, and nothing left behind."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from features.check import check_logs
from features.check_page import page, verdict
from tests.features.log_folder import DESCRIPTION, FIRST_DAY, Logs, random_logs
from uniscale.config import load_config
from uniscale.sections import IngestConfig, SamplesConfig

RULES = IngestConfig(max_quarantine_share=0.1, max_query_length=256)
NOW = FIRST_DAY + timedelta(days=20)
DAYS = [4, 4, 1, 0, 4, 4, 4, 4]  # requests a day; the third is thin, the fourth missing


def samples(**changes) -> SamplesConfig:
    small = {"warmup_days": 1, "valid_days": 1, "test_days": 1, "click_window_hours": 2, "conversion_window_days": 1}
    return load_config().samples.model_copy(update={**small, **changes})


def regular() -> Logs:
    """Requests at noon by DAYS, each with two shown items, a click 30 minutes later and another three hours later."""
    logs = replace(random_logs(requests=1, days=1), requests=[], candidates=[], exposures=[], events=[])
    for day, number in ((day, number) for day, count in enumerate(DAYS) for number in range(count)):
        name, ts = f"r{day}-{number}", FIRST_DAY + timedelta(days=day, hours=12)
        request = {"request_id": name, "domain": "search", "scenario": ["keyword"], "user_id": "u1", "ts": ts}
        logs.requests.append({**request, "query": "lamp", "device": "phone", "random": "0"})
        for position, minutes in ((1, 30), (2, 180)):
            shown = {"request_id": name, "item_id": f"i{position}"}
            logs.exposures.append({**shown, "position": position, "ts": ts})
            own = {"event_id": f"{name}-{position}", "user_id": "u1", "domain": "search", "type": "click"}
            logs.events.append({**shown, **own, "ts": ts + timedelta(minutes=minutes), "amount": None})
    return logs


def check(logs, tmp_path, **changes):
    return check_logs(RULES, samples(**changes), logs.write(tmp_path / "logs"), NOW)


def test_gaps_freshness_and_label_delays_by_hand(tmp_path):
    result = check(regular(), tmp_path)
    assert result["broken"] == "" and [path.name for path in tmp_path.iterdir()] == ["logs"]
    days = result["days"]
    assert [row["requests"] for row in days["volume"]] == DAYS
    assert [row["events"] for row in days["volume"]] == [2 * count for count in DAYS]
    assert (days["usual_requests"], days["thin"], days["missing"]) == (4, ["2026-01-07"], ["2026-01-08"])
    assert result["freshness"]["events"]["age_hours"] == pytest.approx((20 - 7) * 24 - 15)
    click, conversion = result["labels"]
    assert (click["events"], click["within"], click["median_hours"]) == (50, 0.5, 1.75)
    assert (click["matured_until"], click["open_requests"]) == ("2026-01-11", 4)  # 15:00 on the last day less 2 h
    assert (conversion["events"], conversion["within"]) == (0, None)
    assert (conversion["matured_until"], conversion["open_requests"]) == ("2026-01-10", 8)


def test_the_split_is_the_one_a_run_would_make(tmp_path):
    logs = regular()
    fits = check(logs, tmp_path)["split"]
    assert fits["fits"] and [span["requests"] for span in fits["spans"]] == [5, 4, 4]
    assert [(span["first"], span["last"]) for span in fits["spans"]] == [
        ("2026-01-06", "2026-01-08"),
        ("2026-01-09", "2026-01-09"),
        ("2026-01-11", "2026-01-11"),
    ]
    assert "needs 9" in check(logs, tmp_path, warmup_days=4)["split"]["why"]
    onto_the_gap = check(logs, tmp_path, warmup_days=0, test_days=2)
    assert not onto_the_gap["split"]["fits"] and "falls into valid" in verdict(onto_the_gap)


def test_events_without_a_request_are_counted_by_kind(tmp_path):
    logs = regular()
    logs.events[0]["request_id"] = None
    logs.events[1]["request_id"] = logs.events[2]["request_id"] = "gone"
    result = check(logs, tmp_path)
    assert result["requests_of_events"] == {"events": 50, "unnamed": 1, "unknown": 2, "share": 0.06}
    assert result["tables"]["events"]["quarantined"] == 2 and result["broken"] == ""


def test_what_would_stop_a_run_is_broken_and_the_rest_is_still_told(tmp_path):
    logs = regular()
    for row in logs.exposures[:10]:
        row["position"] = 0
    result = check(logs, tmp_path)
    assert result["broken"].startswith("exposures: 10 of 50 rows (20.0%) break the contract")
    assert result["days"]["volume"][0]["exposures"] == 0 and result["split"]["fits"]


def test_a_table_without_a_valid_row_is_broken(tmp_path):
    logs = regular()
    for row in logs.events:
        row["domain"] = "elsewhere"
    result = check_logs(RULES.model_copy(update={"max_quarantine_share": 1.0}), samples(), logs.write(tmp_path), NOW)
    assert result["broken"] == "no valid row of events" and "days" not in result
    assert "domain is not in description.json" in page(result, "mine")


def test_the_page_escapes_what_the_logs_say_and_loads_nothing(tmp_path):
    logs = replace(regular(), description=replace(DESCRIPTION, limits=("<script>alert(1)</script>",)))
    text = page(check(logs, tmp_path), "<b>")
    assert "<script" not in text and "&lt;script&gt;" in text and "Logs &lt;b&gt;" in text
    assert "http" not in text and "2026-01-07" in text and "thin" in text


def test_the_verb_exits_with_1_on_broken_logs_and_0_on_sound_ones(tmp_path):
    def run(*arguments):
        line = [sys.executable, "-m", "uniscale.cli", "data", "check", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True)

    sound = run(regular().write(tmp_path / "sound"), "--json", "--page", tmp_path / "pages" / "logs.html")
    assert sound.returncode == 0, sound.stderr
    assert len(json.loads(sound.stdout)["days"]["volume"]) == len(DAYS)
    assert "Volume by day" in (tmp_path / "pages" / "logs.html").read_text()
    broken = regular()
    broken.requests.clear()
    done = run(broken.write(tmp_path / "broken"))
    assert done.returncode == 1 and "The contract is broken: no table requests" in " ".join(done.stdout.split())
