"""Drift between the training days and the test days of a samples folder: scores, gauges, Evidently's page, a verdict.

Every row is counted for the scores (`drift_scores`), in two passes of bounded memory: one draws a sample that fixes
the buckets, one counts. Evidently sees that sample of the target domain. The verdict is `drift` when the share of
drifted columns, by either, exceeds `drift.max_drifted_share`, `warn` when any column drifted, `quiet` otherwise.
"""

import math
import time
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.data_quality import Quality
from monitoring.drift_embeddings import embedding_drift, sampled_vectors
from monitoring.drift_faults import name_fault
from monitoring.drift_predictions import prediction_windows
from monitoring.drift_rows import batches, files, watched
from monitoring.drift_sample import Levels, draw, level_of
from monitoring.drift_scores import Buckets, Score, score
from monitoring.gauges import gauges
from monitoring.label_delay import daily_rates, late_labels
from uniscale.artifacts import atomic_folder, read_json, write_json
from uniscale.config import Config
from uniscale.errors import DataError
from uniscale.progress import Progress
from uniscale.samples import SampleSpec
from uniscale.sections import DriftConfig

Window = tuple[str, str]
NOISE_SIGMAS = 3.0  # a change of a label rate must also exceed this many standard errors


def drift(
    config: Config, samples: Path, out: Path, predictions: Path | None = None, workspace: Path | None = None
) -> dict[str, Any]:
    """Compare the test days of a samples folder with its training days; write its results to a folder.

    Args:
        config: its section `drift` and the seed are used.
        samples: a samples folder.
        out: folder to write: drift.json, measures.json (flat, for the gate), drift.html, drift.prom.
        predictions: Parquet file or folder with `request_id` and one probability column (or list) a task; None
            leaves predictions out.
        workspace: of `evidently ui`, to which the report is added; None adds it to none.

    Returns:
        What drift.json holds: verdict and reason, one entry a column and domain, labels, predictions, Evidently's
        tests, and flat `measures` for the gate. Every number is finite.

    Raises:
        DataError: the target domain has no rows in a window, or a file lacks a column.
    """
    samples, settings = Path(samples), config.drift
    spec, splits = SampleSpec.load(samples), read_json(samples / "manifest.json")["splits"]
    target = spec.domains[0]
    windows = {"reference": _reference(settings, splits), "current": tuple(splits["test"])}
    quality: list[dict[str, Any]] = []
    columns: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    notes: list[str] = []
    drawn: dict[str, Levels] = {}
    count = sum(len(files(samples, domain, w)) for domain in spec.domains for w in windows.values())
    progress = Progress("drift", 2 * count, "files")
    for domain in spec.domains:
        empty = [name for name, window in windows.items() if not files(samples, domain, window)]
        if empty and domain == target:
            named = ", ".join(f"{name} window {' to '.join(windows[name])}" for name in empty)
            raise DataError(f"{samples}: no rows of {domain} in the {named}; drift needs both the train and test days")
        if empty:
            notes.append(f"{domain}: not compared, no rows in the {' and the '.join(empty)} window.")
            continue
        levels = {
            name: draw(
                samples, spec, domain, window, settings.sample_rows, np.random.default_rng([config.seed, number])
            )
            for number, (name, window) in enumerate(windows.items())
        }
        drawn = drawn or levels
        counted, rates, problems = _score(samples, spec, domain, windows, levels, settings)
        columns += counted
        labels += rates
        quality += problems
        progress.advance(2 * sum(len(files(samples, domain, window)) for window in windows.values()))
    progress.finish()
    rated = daily_rates(samples, spec, (windows["reference"][0], windows["current"][1]))
    late = [found for task, days in rated.items() if (found := late_labels(task, days, settings.rate_warn))]
    predicted, note = _predictions(predictions, samples, spec, windows, settings)
    notes += [note] if note else []
    vectors = _embeddings(samples, spec, windows, config)
    # Evidently takes seconds to import: only once there is something.
    from monitoring.drift_report import put_verdict, report_on

    with atomic_folder(out) as folder:
        frames = {name: levels["candidate"].columns for name, levels in drawn.items()}
        tests, untested = report_on(watched(spec, target), frames, settings.top_ids, folder / "drift.html", workspace)
        result = judge(settings, target, columns, labels, predicted, tests)
        result |= {"late_labels": late, "embeddings": vectors, "quality": quality}
        noticed = [f"{target}.{found['task']}: {found['why']}" for found in late]
        noticed += [f"{row['domain']}.{row['name']}: {row['why']}" for row in (*vectors, *quality) if row["why"]]
        result["drifted"] += [line + _owner(line, settings.owners) for line in noticed]
        if noticed and result["verdict"] == "quiet":
            result["verdict"] = "warn"
        result |= {"windows": windows, "columns": columns, "labels": labels, "predictions": predicted}
        result |= {"evidently": [asdict(test) for test in tests], "untested": untested, "notes": notes}
        put_verdict(folder / "drift.html", result)
        write_json(folder / "drift.json", result)
        write_json(folder / "measures.json", result["measures"])
        (folder / "drift.prom").write_text(gauges(result, time.time()))
    return result


def _score(
    samples: Path,
    spec: SampleSpec,
    domain: str,
    windows: dict[str, Window],
    drawn: dict[str, Levels],
    config: DriftConfig,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    buckets = {}
    quality = Quality(watched(spec, domain), frozenset(f.name for f in spec.features if f.kind == "count"))
    for column in watched(spec, domain):
        reference, current = (drawn[name][level_of(column)].columns[column.name] for name in ("reference", "current"))
        if column.kind == "number":
            buckets[column.name] = Buckets.of_numbers(reference)
        elif column.kind == "id":
            buckets[column.name] = Buckets.of_ids(reference, current, config.top_ids)
    labelled = [column.name for column in watched(spec, domain) if column.kind == "label"]
    counts: dict[str, dict[str, Any]] = {"reference": {}, "current": {}}
    positives: dict[str, dict[str, Any]] = {"reference": {}, "current": {}}
    for window_name, window in windows.items():
        for batch in batches(samples, spec, domain, window):
            if window_name == "current":
                quality.add(batch)
            for name, bucket in buckets.items():
                counts[window_name][name] = counts[window_name].get(name, 0) + bucket.counts(batch.values[name])
            for task in labelled:
                hits = np.array([batch.values[task].sum(), len(batch.values[task])])
                positives[window_name][task] = positives[window_name].get(task, 0) + hits
    rows = []
    for column in (c for c in watched(spec, domain) if c.kind != "label"):
        scored = score(counts["reference"][column.name], counts["current"][column.name])
        if scored is not None:
            why = explain(scored, column.kind, config)
            entry = {"domain": domain, "name": column.name, "level": column.level, "kind": column.kind}
            before, now = (drawn[name][level_of(column)].columns[column.name] for name in ("reference", "current"))
            missing = (scored.reference_missing, scored.current_missing)
            fault = name_fault(column.kind, before, now, missing) if why else None
            rows.append(entry | asdict(scored) | {"drifted": why is not None, "why": why, "fault": fault})
    rates = [
        _rate(task, domain, positives["reference"][task], positives["current"][task], config)
        for task in positives["reference"]
    ]
    return rows, rates, quality.problems(domain)


def _reference(config: DriftConfig, splits: dict[str, list[str]]) -> Window:
    """The window compared with: it moves with training, trails the current one, or is pinned until someone moves it."""
    if config.reference == "pinned":
        return config.pinned[0], config.pinned[1]
    if config.reference == "trailing":
        end = date.fromisoformat(splits["test"][0]) - timedelta(days=1)
        return str(end - timedelta(days=config.trailing_days - 1)), str(end)
    return splits["train"][0], splits["train"][1]


def _owner(line: str, owners: dict[str, str]) -> str:
    """Who is asked about a line, by the longest prefix of `domain.column`."""
    known = [prefix for prefix in owners if line.startswith(prefix)]
    return f" ({owners[max(known, key=len)]})" if known else ""


def _embeddings(samples: Path, spec: SampleSpec, windows: dict[str, Window], config: Config) -> list[dict[str, Any]]:
    before, now = (sampled_vectors(samples, spec, windows[name], config.seed) for name in ("reference", "current"))
    return [
        {"domain": spec.domains[0], "name": name}
        | embedding_drift(before[name], now[name], config.drift.embedding_auc_warn)
        for name in before
        if name in now
    ]


def explain(scored: Score, kind: str, config: DriftConfig) -> str | None:
    """The sentence that says why a column drifted, None when it did not."""
    change = scored.current_missing - scored.reference_missing
    if abs(change) > config.missing_warn:
        return f"missing share {scored.reference_missing:.1%} before, {scored.current_missing:.1%} now"
    if not scored.beyond_chance:
        return None
    if kind == "number" and scored.psi - scored.psi_noise > config.psi_warn:
        return f"PSI {scored.psi:.3f}, of which noise {scored.psi_noise:.3f}, threshold {config.psi_warn:g}"
    if kind == "id" and scored.js**2 - scored.js_noise**2 > config.js_warn**2:
        return f"JS {scored.js:.3f}, of which noise {scored.js_noise:.3f}, threshold {config.js_warn:g}"
    return None


def _rate(task: str, domain: str, reference: np.ndarray, current: np.ndarray, config: DriftConfig) -> dict[str, Any]:
    """Change of the share of positive labels; drifted when large beside the threshold and beside its noise."""
    (before_hits, before_rows), (hits, rows) = (int(a) for a in reference), (int(a) for a in current)
    entry: dict[str, Any] = {"domain": domain, "name": task, "reference_rows": before_rows, "current_rows": rows}
    if not before_rows or not rows or not before_hits:
        why = "no positive label in the reference window" if before_rows and rows else "no rows in a window"
        return entry | {"reference": None, "current": None, "change": None, "drifted": False, "why": why}
    before, now = before_hits / before_rows, hits / rows
    pooled = (before_hits + hits) / (before_rows + rows)
    error = math.sqrt(pooled * (1 - pooled) * (1 / before_rows + 1 / rows))
    change = now / before - 1
    drifted = abs(change) > config.rate_warn and abs(now - before) > NOISE_SIGMAS * error
    moved = f"rate {before:.2%} before, {now:.2%} now" if drifted else None
    return entry | {"reference": before, "current": now, "change": change, "drifted": drifted, "why": moved}


def _predictions(
    predictions: Path | None, samples: Path, spec: SampleSpec, windows: dict[str, Window], config: DriftConfig
) -> tuple[list[dict[str, Any]], str | None]:
    if predictions is None:
        return [], "Predictions were not given."
    found, note = prediction_windows(predictions, samples, spec, windows)
    rows = []
    for task, (reference, current) in found.items():
        bucket = Buckets.of_numbers(reference)
        scored = score(bucket.counts(reference), bucket.counts(current))
        if scored is not None:
            why = explain(scored, "number", config)
            rows.append(
                {"domain": spec.domains[0], "name": task} | asdict(scored) | {"drifted": why is not None, "why": why}
            )
    return rows, note


def judge(
    config: DriftConfig,
    target: str,
    columns: list[dict[str, Any]],
    labels: list[dict[str, Any]],
    predicted: list[dict[str, Any]],
    tests: list[Any],
) -> dict[str, Any]:
    """Verdict, reason and flat measures: the target's columns over all rows, and Evidently's tests on the sample."""
    served = [row for row in columns if row["domain"] == target]
    share = sum(row["drifted"] for row in served) / len(served)
    failed = sum(not test.passed for test in tests)
    tested = failed / len(tests)
    noticed = [
        f"{row['domain']}.{row['name']}: {'; '.join(filter(None, [row.get('fault'), row['why']]))}"
        for row in (*columns, *labels, *predicted)
        if row["drifted"]
    ]
    verdict = "drift" if max(share, tested) > config.max_drifted_share else "warn" if noticed else "quiet"
    reason = (
        f"{share:.0%} of {len(served)} columns of {target} drifted over all rows, {failed} of {len(tests)} tests of "
        f"Evidently failed on the sample; {config.max_drifted_share:.0%} is the most allowed."
    )
    measures = {
        "drift.share": share,
        "drift.evidently_share": tested,
        "drift.max_psi": max((row["psi"] for row in served if row["kind"] == "number"), default=0.0),
    }
    return {"verdict": verdict, "reason": reason, "drifted": noticed, "measures": measures, "tests": len(tests)}
