"""Entities, feature views and feature services of a FEATURES folder, generated from its spec.

A view is one table of `features.tables`, or `user_moments`, which is computed when asked for; its time-to-live is how
far back a retrieval may look for a row.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource, ValueType
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.feature_view_projection import FeatureViewProjection
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Array, Float32, Float64, Int64, String

from features.catalogue import MOMENTS, raw_column
from uniscale.samples import Feature, SampleSpec

# Tables that are stamped at least once a day need to be looked for within a day only.
DAILY, STATIC = timedelta(days=1), timedelta(days=36_500)
TABLES = {  # feature view -> entity key and time-to-live
    "user_profile": ("user_id", STATIC),
    "user_statistics": ("user_id", DAILY),
    "user_behaviours": ("user_id", DAILY),
    "query_statistics": ("query", DAILY),
    "item_versions": ("item_id", STATIC),
    "item_statistics": ("item_id", DAILY),
}
SERVICES = {  # feature service -> the views that it serves
    "ranking_requests": ("user_profile", "user_statistics", "user_behaviours"),
    "ranking_moments": ("user_moments",),
    "ranking_queries": ("query_statistics",),
    "ranking_items": ("item_versions", "item_statistics"),
}
ASKED = "asked"  # what a request brings to its on-demand features: seconds since 1970
Source = Callable[[str, Path], DataSource]  # a table's name and file, as an offline store reads it


@dataclass(frozen=True)
class View:
    """One feature view before Feast: its table, entity key, columns with types, and time-to-live."""

    name: str
    entity: str
    columns: dict[str, Any]
    ttl: timedelta


def views(spec: SampleSpec) -> tuple[View, ...]:
    """The feature views that a dataset supplies as tables."""
    found = []
    for name, (key, ttl) in TABLES.items():
        columns = {raw_column(feature): _type(feature) for feature in spec.features if feature.view == name}
        if name == "user_behaviours" and columns:
            columns["behaviour_ts"] = Array(Int64)
        if columns:
            found.append(View(name, key, columns, ttl))
    return tuple(found)


def file_source(name: str, path: Path) -> DataSource:
    """A table as the DuckDB offline store reads it."""
    return FileSource(name=name, path=str(path), timestamp_field="ts", file_format=ParquetFormat())


def spark_source(name: str, path: Path) -> DataSource:
    """A table as the Spark offline store reads it."""
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    return SparkSource(name=name, path=str(path), file_format="parquet", timestamp_field="ts")


def definitions(spec: SampleSpec, tables: Path, source: Source = file_source) -> list[Any]:
    """Feast objects for `FeatureStore.apply`; `tables` is the folder of the source tables."""
    keys = {key for key, _ in TABLES.values()}
    entities = {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING) for key in sorted(keys)
    }
    found: dict[str, Any] = {
        view.name: _feature_view(
            view, entities[view.entity], source(f"{view.name}_table", tables / f"{view.name}.parquet")
        )
        for view in views(spec)
    }
    if "user_moments" in spec.views:
        found["user_moments"] = _moments(found["user_behaviours"])
    services = [
        FeatureService(name=name, features=members)
        for name, wanted in SERVICES.items()
        if (members := [found[view] for view in wanted if view in found])
    ]
    return [*entities.values(), *found.values(), *services]


def model_service(name: str, spec: SampleSpec, offered: SampleSpec, tables: Path) -> FeatureService:
    """The views that a model with this spec reads, of those offered, as its own feature service."""
    members = [one for one in definitions(offered, tables) if one.name in spec.views]
    return FeatureService(name=name, features=members)


def compute_moments(frame: pd.DataFrame) -> pd.DataFrame:
    """The door by which Feast calls `features.on_demand`: its registry keeps this text, so it imports what it needs."""
    import pandas

    from features.on_demand import user_moments

    found = user_moments(frame["behaviour_ts"].tolist(), frame["asked"].to_numpy())
    return pandas.DataFrame(found, index=frame.index)


def _type(feature: Feature) -> Any:
    scalar = String if feature.kind == "id" else Float32
    return Array(scalar) if feature.level == "behaviour" else scalar


def _feature_view(view: View, entity: Entity, source: Any) -> FeatureView:
    if view.name == "user_behaviours":
        source = PushSource(name="behaviours", batch_source=source)
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=view.ttl,
        schema=[Field(name=name, dtype=kind) for name, kind in view.columns.items()],
        source=source,
        online=True,
    )


def _moments(behaviours: FeatureView) -> OnDemandFeatureView:
    instants: FeatureViewProjection = behaviours[["behaviour_ts"]].projection
    return OnDemandFeatureView(
        name="user_moments",
        schema=[Field(name=name, dtype=Float32) for name in MOMENTS],
        sources=[instants, RequestSource(name="request", schema=[Field(name=ASKED, dtype=Float64)])],
        mode="pandas",
        udf=cast(FunctionType, compute_moments),
        udf_string=inspect.getsource(compute_moments),
    )
