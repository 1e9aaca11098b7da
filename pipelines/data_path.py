"""The steps from logs to samples, which most pipelines begin with."""

from dataclasses import dataclass
from typing import Any

from components.features import features as features_step
from components.ingest import ingest as ingest_step
from components.logs import logs as logs_step
from components.samples import samples as samples_step
from pipelines.place import Begun
from uniscale.config import Config

READ = ("preflight", "logs", "ingest")
BUILD = ("features", "samples")


@dataclass(frozen=True)
class Sections:
    """Pipeline parameters, each a section of the configuration as JSON."""

    seed: Any
    features: Any
    samples: Any
    spark: Any


def read_logs(
    run: Begun, defaults: Config, seed: Any, data: Any, simulation: Any, ingest: Any, input_hash: Any
) -> tuple[Any, Any]:
    """Raw logs and the clean ones.

    An input path of a cluster is read again every time, since nobody hashed what lies there.
    """
    read = logs_step(seed=seed, data=data, simulation=simulation, input_hash=input_hash).after(run.ready)
    if run.on_cluster and defaults.data.source != "simulation":
        read.set_caching_options(False)
    raw = read.outputs["raw"]
    return raw, ingest_step(seed=seed, rules=ingest, raw=raw).outputs["clean"]


def build(given: Sections, clean: Any) -> tuple[Any, Any]:
    """Feature tables and samples of clean logs."""
    made = features_step(seed=given.seed, settings=given.features, samples=given.samples, clean=clean)
    tables = made.outputs["tables"]
    rows = samples_step(
        seed=given.seed, settings=given.samples, features=given.features, spark=given.spark, clean=clean, tables=tables
    )
    return tables, rows.outputs["rows"]
