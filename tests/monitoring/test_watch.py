"""Embeddings, quality, reference, history, and the alert rules over the gauges."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import monitoring
from monitoring.data_quality import Quality
from monitoring.drift import _owner, _reference
from monitoring.drift_embeddings import embedding_drift, sampled_vectors
from monitoring.drift_history import history, keep
from monitoring.drift_rows import Batch, Column
from monitoring.gauges import gauges, skew_gauges
from serving.telemetry import Telemetry
from tests.sample_folder import SPEC, write_samples
from uniscale.config import load_config

HOME = Path(monitoring.__file__).parent
PROMTOOL = shutil.which("promtool")
RULES = {group["name"]: group["rules"] for group in yaml.safe_load((HOME / "alerts.yaml").read_text())["groups"]}
RESULT = {
    "columns": [
        {"domain": "search", "name": "item_price", "level": "candidate", "psi": 0.3, "js": 0.2, "drifted": True}
        | {"reference_missing": 0.0, "current_missing": 0.0}
    ],
    "predictions": [],
    "labels": [{"domain": "search", "name": "click", "reference": 0.1, "current": 0.05}],
    "late_labels": [{"task": "click", "days": 2}],
    "embeddings": [{"domain": "search", "name": "query_text", "auc": 0.9, "noise": 0.01}],
    "quality": [{"domain": "search", "name": "item_price", "count": 3}],
    "measures": {"drift.share": 0.6, "drift.evidently_share": 0.1, "drift.max_psi": 0.3},
    "verdict": "drift",
}

SKEW = {
    "requests": 100,
    "features": [{"name": "item_price", "share": 0.2, "why": "differs in 20.0% of 900 items"}],
}


def test_vectors_of_one_cloud_are_not_told_apart_and_a_moved_cloud_is():
    rng = np.random.default_rng(3)
    cloud, same = rng.normal(size=(1500, 6)), rng.normal(size=(1500, 6))
    assert not embedding_drift(cloud, same, 0.65)["drifted"]
    moved = embedding_drift(cloud, same + np.eye(6)[0], 0.65)
    assert moved["drifted"] and "AUC" in moved["why"]


def test_vectors_are_those_of_the_exposed_items_and_queries(tmp_path):
    samples = write_samples(tmp_path / "s", requests_per_day=20)
    found = sampled_vectors(samples, SPEC, ("2026-01-05", "2026-01-06"), 1)
    assert found["query_text"].shape == (40, SPEC.text_dim)
    rows = pq.read_table(samples / "rows", filters=[("domain", "=", "search"), ("day", "<", "2026-01-07")]).to_pylist()
    assert found["item_content"].shape == (sum(s == 0 for r in rows for s in r["sampling"]), SPEC.content_dim)


def test_quality_counts_what_no_reference_excuses():
    quality = Quality([Column("price", "candidate", "number")], frozenset({"price"}))
    values = np.array([1.0, np.inf, -2.0, np.nan])
    quality.add(Batch({"price": values}, np.array([0, 0, 1, 1]), 3))
    found = {row["name"]: row["why"] for row in quality.problems("search")}
    assert [row["why"] for row in quality.problems("search") if row["name"] == "price"] == [
        "1 infinite values",
        "1 negative counts",
    ]
    assert found["requests"] == "1 of 3 requests have no exposed candidate"


def test_the_reference_is_the_window_that_the_configuration_names():
    settings = load_config().drift
    splits = {"train": ["2026-01-01", "2026-01-20"], "test": ["2026-02-01", "2026-02-04"]}
    assert _reference(settings, splits) == ("2026-01-01", "2026-01-20")
    trailing = settings.model_copy(update={"reference": "trailing", "trailing_days": 7})
    assert _reference(trailing, splits) == ("2026-01-25", "2026-01-31")
    pinned = settings.model_copy(update={"reference": "pinned", "pinned": ["2025-12-01", "2025-12-31"]})
    assert _reference(pinned, splits) == ("2025-12-01", "2025-12-31")


def test_the_owner_of_the_longest_prefix_is_named():
    owners = {"search": "ranking", "search.item": "catalogue"}
    assert _owner("search.item_price: PSI", owners) == " (catalogue)"
    assert _owner("search.query: PSI", owners) == " (ranking)" and _owner("ads.x: PSI", owners) == ""


def test_history_grows_by_day_and_is_drawn(tmp_path):
    for day, psi in (("2026-01-12", 0.05), ("2026-01-13", 0.4), ("2026-01-13", 0.5)):
        windows = {"reference": ["2026-01-01", "2026-01-07"], "current": ["2026-01-11", day]}
        measures = {"drift.max_psi": psi}
        keep(RESULT | {"windows": windows, "reason": "", "drifted": ["<search.a>"], "measures": measures}, tmp_path)
    assert [entry["measures"]["drift.max_psi"] for entry in history(tmp_path)] == [0.05, 0.5]
    text = (tmp_path / "history.html").read_text()
    assert text.count("<circle") == 2 and "&lt;search.a&gt;" in text


def test_skew_gauges_by_hand():
    same = {"name": 'a"b', "share": 0.0, "why": None}
    lines = skew_gauges(SKEW | {"features": [*SKEW["features"], same]}).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'uniscale_skew_share{feature="item_price"} 0.2',
        'uniscale_skew_share{feature="a\\"b"} 0',
        'uniscale_skew_skewed{feature="item_price"} 1',
        'uniscale_skew_skewed{feature="a\\"b"} 0',
        "uniscale_skew_requests 100",
    ]


def test_every_series_of_the_rules_and_of_the_dashboard_is_written():
    text = gauges(RESULT, 0.0) + skew_gauges(SKEW) + Telemetry().exposition().decode()
    written = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    rules = [rule for group in RULES.values() for rule in group]
    panels = json.loads((HOME / "grafana.json").read_text())["panels"]
    asked = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    for text in asked:
        named = {name.removesuffix("_bucket") for name in re.findall(r"uniscale_\w+", text)}
        assert named and named <= written, text
    assert all(rule["annotations"]["action"] for rule in rules)


def test_what_a_rule_sees_the_increase_of_is_shown_before_it_happens():
    """To Prometheus a counter that appears with 1 has not increased."""
    shown = Telemetry().exposition().decode().splitlines()
    asked = [re.search(r"increase\((.+)\[", rule["expr"]) for rule in RULES["uniscale-serving"]]
    series = [found[1] for found in asked if found]
    assert len(series) == 3 and {f"{one} 0.0" for one in series} <= set(shown)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_fires_each_rule_of_the_service_on_its_fault_and_none_on_quiet_counters(tmp_path):
    """In a minute 60 answers; loud, 6 more by popularity, 6 refused, and one of each other thing to report."""
    faults = {
        'uniscale_answers_total{fallback="deadline"}': 6,
        'uniscale_refusals_total{status="429"}': 6,
        'uniscale_routing_changes_total{outcome="refused"}': 1,
        'uniscale_item_reloads_total{outcome="failed"}': 1,
        "uniscale_log_rows_dropped_total": 1,
    }
    tests = []
    for loud in (1, 0):
        slopes = {
            'uniscale_answers_total{fallback="none"}': 60,
            **{name: loud * slope for name, slope in faults.items()},
        }
        series = [{"series": name, "values": f"0+{slope}x60"} for name, slope in slopes.items()]
        checks = []
        for rule in RULES["uniscale-serving"]:
            labels = ({"fallback": "deadline"} if "$labels.fallback" in str(rule) else {}) | rule["labels"]
            fired = [{"exp_labels": labels, "exp_annotations": _filled(rule, labels)}] * loud
            checks.append({"eval_time": "1h", "alertname": rule["alert"], "exp_alerts": fired})
        tests.append({"interval": "1m", "input_series": series, "alert_rule_test": checks})
    _promtool(tmp_path, tests)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_fires_each_rule_on_its_fault_and_none_on_quiet_gauges(tmp_path):
    rules = {rule["alert"]: rule for rule in RULES["uniscale-monitoring"]}
    loud, quiet = gauges(RESULT, 0.0) + skew_gauges(SKEW), RESULT["columns"][0] | {"drifted": False}
    calm = gauges(
        RESULT
        | {"columns": [quiet], "late_labels": [], "verdict": "quiet"}
        | {"embeddings": [{"domain": "search", "name": "query_text", "auc": 0.51, "noise": 0.01}]},
        72 * 3600.0,
    ) + skew_gauges(SKEW | {"features": [SKEW["features"][0] | {"why": None}]})
    tests = []
    for text, fires in ((loud, set(rules)), (calm, set())):
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        series = [{"series": name, "values": f"{float(value):g}+0x1200"} for name, value in lines]
        checks = []
        for name in rules:
            expected = [{"exp_labels": _labels(name, rules[name], lines)}] if name in fires else []
            for found in expected:
                found["exp_annotations"] = _filled(rules[name], found["exp_labels"])
            checks.append({"eval_time": "72h", "alertname": name, "exp_alerts": expected})
        tests.append({"interval": "5m", "input_series": series, "alert_rule_test": checks})
    _promtool(tmp_path, tests)


def _promtool(folder, tests):
    shutil.copy(HOME / "alerts.yaml", folder / "alerts.yaml")
    (folder / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "tests": tests}))
    done = subprocess.run([PROMTOOL, "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _labels(name, rule, lines):
    series = next(word for word in rule["expr"].replace("(", " ").replace(")", " ").split() if "uniscale" in word)
    found = next(text for text, _ in lines if text.split("{")[0] == series)
    pairs = found.partition("{")[2].rstrip("}")
    labels = dict(pair.split("=") for pair in pairs.split(",")) if pairs else {}
    return {key: value.strip('"') for key, value in labels.items()} | rule["labels"]


def _filled(rule, labels):
    values = {"{{ $value }}": "2"} | {f"{{{{ $labels.{key} }}}}": value for key, value in labels.items()}
    filled = {}
    for key, text in rule["annotations"].items():
        for slot, value in values.items():
            text = text.replace(slot, value)
        filled[key] = text
    return filled
