"""Logs and features in, SAMPLES folder out: the door to ES3 (UniScale 3.3), which starts Spark and cleans up."""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from features.es3.session import spark_session
from features.splits import Splits
from uniscale.artifacts import atomic_folder, write_json
from uniscale.config import Config
from uniscale.progress import Progress

# A short job on a laptop: the first compiler alone is ready sooner than the second would pay, one collector thread
# leaves the other core to the work, and a heap of full size from the start spares the collections that grow it.
LOCAL_JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:NewRatio=1 -Xms"
JOB = "features.es3.job"


def build_samples(
    config: Config, logs: Path, features: Path, out: Path, spark: SparkSession | None = None
) -> dict[str, Any]:
    """Build the samples of a clean log folder and its features.

    Writes `rows/day=…/domain=…/*.parquet`, `items.parquet`, `spec.json` and `manifest.json`.

    Args:
        config: sections `samples` and `spark`, and `seed`.
        logs: LOGS folder.
        features: FEATURES folder made from these logs; its split by time is the samples'.
        out: SAMPLES folder, written whole or not at all.
        spark: a session to run in; one is started and stopped when left out.

    Returns:
        The manifest.

    Raises:
        DataError: no labelled search sample to train on, or folders or settings that do not fit together.
        MissingToolError: no Java.
    """
    logs, features, out = Path(logs).resolve(), Path(features).resolve(), Path(out).resolve()
    splits = Splits.load(features, config.samples)
    if spark is None:
        java = LOCAL_JAVA + config.spark.driver_memory if config.spark.master.startswith("local") else ""
        # Feast's import and the start of the JVM take ten seconds each: together, ten.
        with ThreadPoolExecutor(1) as other:
            loaded = other.submit(import_module, JOB)
            with spark_session(config.spark, java) as session:
                loaded.result()
                return build_samples(config, logs, features, out, session)
    progress = Progress("samples", 4, "stages")
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".scratch-es3-", dir=out.parent))
    try:
        with atomic_folder(out) as folder:
            job = import_module(JOB).Job(config.samples, config.seed, logs, features, spark, splits, scratch, progress)
            manifest: dict[str, Any] = job.write(folder)
            write_json(folder / "manifest.json", manifest)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = manifest["table1"][-1]
    progress.finish(f"({rows['requests']:,} training requests, {rows['samples']:,} samples)")
    return manifest
