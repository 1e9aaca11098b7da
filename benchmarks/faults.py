"""False alarms of quiet weeks and the cost of drift scores, over sample folders drawn directly.

`python -m benchmarks.faults` prints one line of JSON a measurement.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.experiments import peak_gigabytes
from monitoring.drift import drift, explain
from monitoring.drift_faults import name_fault
from monitoring.drift_scores import Buckets, score
from monitoring.label_delay import late_labels
from uniscale.artifacts import write_json
from uniscale.config import load_config
from uniscale.samples import Feature, LabelSource, SampleSpec, Sampling

SPEC = SampleSpec(
    features=(
        *(Feature(f"item_id_{n}", "item", "id", "candidate", "item") for n in range(4)),
        *(Feature(f"item_number_{n}", "item", "number", "candidate") for n in range(6)),
        Feature("user_id", "user", "id", "request", "user"),
        Feature("user_number", "user", "number", "request"),
    ),
    domains=("search",),
    scenarios=("keyword",),
    tasks=("click",),
    content_dim=0,
    text_dim=0,
    max_behaviours=0,
)
EXPOSED = 10


def week(rng: np.random.Generator, rows: int, places: np.random.Generator) -> dict[str, np.ndarray]:
    """Ten columns: ids of a long-tailed catalogue, lognormal and normal numbers; `places` fixes the scales."""
    columns: dict[str, np.ndarray] = {}
    for n in range(4):
        columns[f"item_id_{n}"] = 1 + np.minimum(rng.zipf(1.2 + 0.2 * n, rows), 10_000 * (n + 1))
    for n in range(6):
        scale = places.uniform(0.2, 2.0)
        columns[f"item_number_{n}"] = rng.normal(0, scale, rows) if n % 2 else rng.lognormal(0, scale, rows)
    return columns


def false_alarms(weeks: int, rows: int, seed: int) -> dict[str, float]:
    """Alarms where nothing changed: drift of ten columns a week against a reference week, and late labels of a feed."""
    settings, alarms, late, named = load_config().drift, 0, 0, 0
    rng = np.random.default_rng(seed)
    reference = week(rng, rows, np.random.default_rng(seed))
    for _ in range(weeks):
        current = week(rng, rows, np.random.default_rng(seed))
        for name, before in reference.items():
            now, kind = current[name], "id" if name.startswith("item_id") else "number"
            bucket = Buckets.of_numbers(before) if kind == "number" else Buckets.of_ids(before, now, settings.top_ids)
            scored = score(bucket.counts(before), bucket.counts(now))
            assert scored is not None
            if explain(scored, kind, settings):
                alarms += 1
                named += name_fault(kind, before, now, (0.0, 0.0)) is not None
        days = [(f"day {n}", rows // 7, int(rng.binomial(rows // 7, 0.03))) for n in range(7)]
        late += late_labels("click", days, settings.rate_warn) is not None
    counts = {"alarms a week": alarms / weeks, "named a week": named / weeks, "late feeds a week": late / weeks}
    return counts | {"weeks": weeks, "columns": len(reference)}


def write_wide_samples(folder: Path, rows: int, seed: int = 0) -> Path:
    """A samples folder with `rows` exposed candidates on ten days, and no shift."""
    rng, per_day = np.random.default_rng(seed), rows // 10 // EXPOSED
    days = [f"2026-03-{n:02d}" for n in range(1, 11)]
    offsets = np.arange(0, (per_day + 1) * EXPOSED, EXPOSED, dtype=np.int32)
    for day in days:
        flat = week(rng, per_day * EXPOSED, np.random.default_rng(seed))
        columns = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in flat.items()}
        click = (rng.random(per_day * EXPOSED) < 0.05).astype(np.int8)
        lists = {"sampling": np.full(len(click), int(Sampling.EXPOSED), np.int8), "click": click}
        lists["click_source"] = click * np.int8(LabelSource.IN_DOMAIN)
        columns |= {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in lists.items()}
        columns["user_id"] = pa.array(rng.integers(1, 100_000, per_day))
        columns["user_number"] = pa.array(rng.normal(size=per_day))
        columns["request_id"] = pa.array([f"{day}-{n}" for n in range(per_day)])
        part = folder / "rows" / f"day={day}" / "domain=search"
        part.mkdir(parents=True)
        pq.write_table(pa.table(columns), part / "part-0.parquet", compression="zstd")
    SPEC.save(folder)
    splits = {"train": [days[0], days[4]], "valid": [days[5], days[5]], "test": [days[6], days[9]]}
    write_json(folder / "manifest.json", {"splits": splits, "seed": seed, "table1": [], "skipped": []})
    return folder


def drift_seconds(rows: int, folder: Path) -> dict[str, float]:
    """Cost of the whole drift step, Evidently's page on a sample included."""
    samples = write_wide_samples(folder / "samples", rows)
    started, busy = time.perf_counter(), time.process_time()
    drift(load_config(), samples, folder / "out")
    seconds = {"seconds": time.perf_counter() - started, "processor seconds": time.process_time() - busy}
    return {"rows": float(rows)} | seconds | {"peak GB": peak_gigabytes()}


def main() -> None:
    """Print every measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weeks", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    chosen = parser.parse_args()
    print(json.dumps(false_alarms(chosen.weeks, 100_000, 1)), flush=True)
    for rows in chosen.rows:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(drift_seconds(rows, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
