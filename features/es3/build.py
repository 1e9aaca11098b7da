"""Logs and features in, SAMPLES folder out: the door to ES3 (UniScale 3.3), which starts Spark and cleans up."""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from features.es3 import report
from features.es3.attribution import Rules
from features.es3.increment import Made, check_earlier, days_to_build, hashes_of_days, recipe_of, take_over
from features.es3.session import spark_session
from features.splits import Splits
from uniscale.artifacts import atomic_folder, write_json
from uniscale.config import Config
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.progress import Progress

# A short job on a laptop: the first compiler alone is ready sooner than the second would pay, one collector thread
# leaves the other core to the work, and a heap and a class space of full size from the start spare the collections that
# grow them.
LOCAL_JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:NewRatio=1 -XX:MetaspaceSize=512m -Xms"
JOB = "features.es3.job"


def build_samples(
    config: Config,
    logs: Path,
    features: Path,
    out: Path,
    spark: SparkSession | None = None,
    previous: Path | None = None,
) -> dict[str, Any]:
    """Build the samples of a clean log folder and its features.

    Writes `rows/day=…/domain=…/*.parquet`, `items.parquet`, `spec.json`, `manifest.json` and `days.json`.

    Args:
        config: sections `samples` and `spark`, and `seed`.
        logs: LOGS folder.
        features: FEATURES folder made from these logs; its split by time is the samples'.
        out: SAMPLES folder, written whole or not at all.
        spark: a session to run in; where there is something to build, one is started and stopped when left out.
        previous: SAMPLES folder of an earlier build, whose days are taken over where the logs that they depend on
            have not changed (`features.es3.increment`).

    Returns:
        The manifest.

    Raises:
        DataError: no labelled search sample to train on, or folders or settings that do not fit together.
        MissingToolError: no Java.
    """
    logs, features, out = Path(logs).resolve(), Path(features).resolve(), Path(out).resolve()
    splits = Splits.load(features, config.samples)
    recipe, hashes = recipe_of(features, config.samples, config.seed), hashes_of_days(logs)
    earlier = Made.load(previous) if previous else None
    if previous and earlier:
        check_earlier(previous, features, earlier, recipe)
    days = days_to_build(splits, hashes, earlier)
    if spark is None and days:
        java = LOCAL_JAVA + config.spark.driver_memory if config.spark.master.startswith("local") else ""
        # Feast's import and the start of the JVM take ten seconds each: together, ten.
        with ThreadPoolExecutor(1) as other:
            loaded = other.submit(import_module, JOB)
            with spark_session(config.spark, java) as session:
                loaded.result()
                return build_samples(config, logs, features, out, session, previous)
    description = LogDescription.load(logs)
    rules = Rules.of(config.samples, description.target, description.tasks)
    progress = Progress("samples", 4, "stages")
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".scratch-es3-", dir=out.parent))
    try:
        with atomic_folder(out) as folder:
            counts: dict[str, dict[str, Any]] = {}
            if days:
                job = import_module(JOB).Job(
                    config.samples, config.seed, logs, features, spark, days, splits.tail_days, scratch, progress
                )
                counts = job.write(folder)
            kept = [day for day in splits.days if day not in days]
            if previous and earlier:
                take_over(previous, kept, folder)
                counts |= {day.isoformat(): earlier.days[day.isoformat()] for day in kept}
            for name in ("items.parquet", "spec.json"):
                shutil.copyfile(features / name, folder / name)
            Made(recipe, hashes, counts).save(folder)
            built = {"built": [day.isoformat() for day in days], "kept": [day.isoformat() for day in kept]}
            skipped = report.skipped_stages(description, config.samples)
            done = report.Counted(skipped, rules, report.count_logged(logs, rules.target), counts)
            found = report.manifest(folder, logs, features, config.seed, splits, done)
            _check_positives(found, rules)
            manifest: dict[str, Any] = {**found, "days": built}
            write_json(folder / "manifest.json", manifest)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = manifest["table1"][-1]
    progress.finish(f"({rows['requests']:,} training requests, {rows['samples']:,} samples)")
    return manifest


def _check_positives(manifest: dict[str, Any], rules: Rules) -> None:
    if not manifest["table1"][0]["click_positives"]:
        first, last = manifest["splits"]["train"]
        raise DataError(
            f"no positive {rules.primary} in {rules.target} from {first} to {last}, so there is nothing to train on: "
            f"events of type {rules.tasks[rules.primary]} must name their request and an item it exposed, within "
            f"{rules.windows[rules.primary]} (samples.click_window_hours, samples.conversion_window_days)"
        )
