"""Drift and train-versus-serve skew as Prometheus gauges, in the text a node exporter's textfile collector reads."""

from collections.abc import Mapping, Sequence
from typing import Any

GAUGES = (
    ("psi", "uniscale_drift_psi", "Population stability index against the training days."),
    ("js", "uniscale_drift_js", "Jensen-Shannon distance against the training days, base 2."),
    ("reference_missing", "uniscale_drift_reference_missing", "Share of missing values in the training days."),
    ("current_missing", "uniscale_drift_current_missing", "Share of missing values in the later days."),
    ("drifted", "uniscale_drift_drifted", "1 when a threshold of the configuration is exceeded."),
)
VERDICTS = {"quiet": 0, "warn": 1, "drift": 2}


def gauges(result: Mapping[str, Any], measured_at: float) -> str:
    """Text of the gauges of a drift result; `measured_at` in seconds since 1970."""
    lines: list[str] = []
    for key, name, about in GAUGES:
        rows = [({"domain": r["domain"], "column": r["name"], "level": r["level"]}, r[key]) for r in result["columns"]]
        rows += [
            ({"domain": r["domain"], "column": r["name"], "level": "prediction"}, r[key]) for r in result["predictions"]
        ]
        lines += _gauge(name, about, rows)
    rates = [
        ({"domain": r["domain"], "task": r["name"], "window": window}, r[window])
        for r in result["labels"]
        for window in ("reference", "current")
        if r[window] is not None
    ]
    lines += _gauge("uniscale_drift_label_rate", "Share of positive labels among exposed candidates.", rates)
    vectors = [({"domain": r["domain"], "column": r["name"]}, r) for r in result["embeddings"]]
    for key, about in (
        ("auc", "AUC of telling the windows' vectors apart."),
        ("noise", "Its standard error by chance."),
    ):
        lines += _gauge(f"uniscale_drift_embedding_{key}", about, [(labels, row[key]) for labels, row in vectors])
    days = {r["name"]: 0 for r in result["labels"]} | {r["task"]: r["days"] for r in result["late_labels"]}
    late = [({"task": task}, count) for task, count in days.items()]
    lines += _gauge("uniscale_drift_late_label_days", "Newest days whose labels are not all in.", late)
    problems = [({"domain": r["domain"], "column": r["name"]}, r["count"]) for r in result["quality"]]
    lines += _gauge("uniscale_drift_quality_problems", "Rows that no reference excuses.", problems)
    lines += _gauge("uniscale_drift_measured_timestamp_seconds", "When it was measured.", [({}, measured_at)])
    for name, value in result["measures"].items():
        about = {
            "drift.share": "Share of drifted columns, all rows.",
            "drift.evidently_share": "Share of failed Evidently tests, on a sample.",
            "drift.max_psi": "Largest PSI of a numeric column.",
        }[name]
        lines += _gauge(f"uniscale_{name.replace('.', '_')}", about, [({}, value)])
    lines += _gauge("uniscale_drift_verdict", "0 quiet, 1 warn, 2 drift.", [({}, VERDICTS[result["verdict"]])])
    return "\n".join(lines) + "\n"


def skew_gauges(found: Mapping[str, Any]) -> str:
    """Text of the gauges of `monitoring.skew`'s result; without a comparison there is no feature, and 0 requests."""
    rows = [({"feature": row["name"]}, row) for row in found["features"]]
    lines = _gauge(
        "uniscale_skew_share",
        "Share of served requests, or of their items, in which a feature differs from the samples'.",
        [(labels, row["share"]) for labels, row in rows],
    )
    lines += _gauge(
        "uniscale_skew_skewed",
        "1 when that share is above the configuration's.",
        [(labels, row["why"] is not None) for labels, row in rows],
    )
    lines += _gauge("uniscale_skew_requests", "Served requests that were compared.", [({}, found["requests"])])
    return "\n".join(lines) + "\n"


def _gauge(name: str, about: str, rows: Sequence[tuple[Mapping[str, str], float]]) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} gauge", *(f"{name}{_labels(r)} {float(v):.12g}" for r, v in rows)]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{key}="{_escape(value)}"' for key, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
