"""Evidently's drift report on flat samples of two windows: the tests that gate, and the page with its plots.

Every column gets a test of its own, and the number of tests is checked: a `ValueDrift` without `tests` in a report
without tests computes a score, tests nothing and passes in silence. Ids come bucketed to the top ones, because
Jensen–Shannon distances of high-cardinality columns are sampling noise; list columns never come at all.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift
from evidently.tests import lt

from monitoring.drift_history import folded
from monitoring.drift_rows import Column
from monitoring.drift_scores import Buckets

NUMBER_METHOD, NUMBER_THRESHOLD = "wasserstein", 0.1  # distance over the reference's standard deviation
CATEGORY_METHOD, CATEGORY_THRESHOLD = "jensenshannon", 0.1
PROJECT = "UniScale drift"
SHOWN = 12  # of what was found; the rest is folded


@dataclass(frozen=True)
class Tested:
    """One test of Evidently: its column, method, score, threshold and whether it passed."""

    column: str
    method: str
    score: float
    threshold: float
    passed: bool


def report_on(
    columns: Iterable[Column],
    sample: Mapping[str, Mapping[str, np.ndarray]],
    top_ids: int,
    page: Path,
    workspace: Path | None = None,
) -> tuple[list[Tested], list[str]]:
    """Test the request and candidate columns of a sample; also names the columns without a value in a window.

    Args:
        columns: columns under watch; lists of behaviours are left to the scores over all rows.
        sample: `reference` and `current`, each column name -> values (n,) of equal length.
        top_ids: ids kept by name.
        page: HTML file to write.
        workspace: of `evidently ui`, which gets the report as a run; None adds it to none.
    """
    frames: dict[str, dict[str, np.ndarray]] = {name: {} for name in sample}
    numbers, categories, untested = [], [], []
    for column in columns:
        if column.level == "behaviour":
            continue
        pair = {name: values[column.name] for name, values in sample.items()}
        if column.kind == "number" and not all(np.isfinite(values).any() for values in pair.values()):
            untested.append(column.name)
            continue
        if column.kind == "number":
            numbers.append(column.name)
        else:
            categories.append(column.name)
            bucket = Buckets.of_ids(pair["reference"], pair["current"], top_ids)
            pair = {name: _named(values, bucket, column.kind) for name, values in pair.items()}
        for name, values in pair.items():
            frames[name][column.name] = values
    reference, current = (pd.DataFrame(frames[name]) for name in ("reference", "current"))
    return evidently_report(reference, current, numbers, categories, page, workspace), untested


def _named(values: np.ndarray, bucket: Buckets, kind: str) -> np.ndarray:
    """Short words in place of hashes: `top 1` is the most frequent id."""
    if kind == "label":
        return np.where(values > 0, "positive", "negative")
    words = np.array(["missing", *(f"top {n + 1}" for n in range(bucket.count - 1)), "other"])
    return words[bucket.index(values) + 1]


def evidently_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    numbers: list[str],
    categories: list[str],
    page: Path,
    workspace: Path | None = None,
) -> list[Tested]:
    """Test every column of two flat frames, write Evidently's page, and return one result a column.

    Args:
        reference: rows of the earlier window.
        current: rows of the later window, the same columns.
        numbers: numeric columns, each with at least one value in both frames.
        categories: columns of short strings, few distinct.
        page: HTML file to write.
        workspace: of `evidently ui`, which gets the report as a run, without the rows.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    rules = [(name, NUMBER_METHOD, NUMBER_THRESHOLD) for name in numbers]
    rules += [(name, CATEGORY_METHOD, CATEGORY_THRESHOLD) for name in categories]
    report = Report(
        [ValueDrift(column=name, method=how, threshold=at, tests=[lt(at)]) for name, how, at in rules],
        metadata={"reference_rows": str(len(reference)), "current_rows": str(len(current))},
    )
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    snapshot = report.run(
        Dataset.from_pandas(current, data_definition=definition),
        Dataset.from_pandas(reference, data_definition=definition),
    )
    found = snapshot.dict()
    values = {metric["config"]["column"]: float(metric["value"]) for metric in found["metrics"]}
    passed = {test["metric_config"]["params"]["column"]: test["status"].value == "SUCCESS" for test in found["tests"]}
    assert len(found["tests"]) == len(rules) and set(passed) == {name for name, _, _ in rules}, "a column is untested"
    snapshot.save_html(str(page))
    if workspace is not None:
        _add_run(workspace, snapshot)
    return [Tested(name, how, values[name], at, passed[name]) for name, how, at in rules]


def put_verdict(page: Path, result: Mapping[str, Any]) -> None:
    """Put what was found over all rows (verdict, reason, drifted, notes) above Evidently's plots of the sample."""
    head = (
        '<header style="font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:1.5rem auto;padding:0 1rem;'
        f'overflow-wrap:anywhere"><h1>Verdict: {escape(result["verdict"])}</h1><p>{escape(result["reason"])}</p>'
        f"{folded([*result['drifted'], *result['notes']], SHOWN)}"
        "<p>Below, Evidently on a sample: a plot and a test for each column.</p></header>"
    )
    text = page.read_text(encoding="utf-8")
    assert text.count("<body>") == 1, "Evidently's page has changed"
    page.write_text(text.replace("<body>", f"<body>{head}", 1), encoding="utf-8")


def _add_run(workspace: Path, snapshot: Any) -> None:
    """Add a report to the workspace's project of drift reports, which is made where there is none."""
    from evidently.ui.workspace import Workspace  # its service framework is only for those who want the workspace

    kept = Workspace.create(str(workspace))
    found = [*kept.search_project(PROJECT), None]
    project = found[0] or kept.create_project(PROJECT, "Drift of the served features, a run a comparison.")
    kept.add_run(project.id, snapshot)
