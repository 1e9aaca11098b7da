"""Entities, feature views and feature services of a FEATURES folder, generated from its spec and description.

Each view is one table of `features.tables`; its time-to-live is how far back a retrieval may look for it.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64, String

from features.catalogue import CATEGORY_LEVELS
from uniscale.logs import LogDescription
from uniscale.samples import SampleSpec

# Tables that are stamped at least once a day need to be looked for within a day only.
DAILY, STATIC = timedelta(days=1), timedelta(days=36_500)


@dataclass(frozen=True)
class View:
    """One feature view before Feast: its table, entity key, columns with types, and time-to-live."""

    name: str
    entity: str
    columns: dict[str, Any]
    ttl: timedelta


def views(spec: SampleSpec, description: LogDescription) -> tuple[View, ...]:
    """The feature views that a dataset supplies, in table order."""
    numbers = {f.name: Float32 for f in spec.features if f.kind != "id"}
    profile = {f"user_{name}": String for name in description.profile}
    attributes = {f"item_category_{level}": String for level in range(1, CATEGORY_LEVELS + 1)}
    attributes |= {f"item_{name}": String for name in ("brand", "seller", *description.item_categories)}
    attributes |= {f"item_{name}": Float32 for name in ("price", *description.item_numbers)}
    behaviours = {f.name: Array(String) for f in spec.features if f.level == "behaviour" and f.name != "behaviour_item"}
    behaviours = {"behaviour_item_id": Array(String), **behaviours, "behaviour_ts": Array(Int64)}
    statistics = {
        block: {name: kind for name, kind in numbers.items() if name.startswith(f"{block}_") and name not in attributes}
        for block in ("user", "query", "item")
    }
    user = [View("user_profile", "user_id", profile, STATIC)] if profile else []
    if description.has_users:
        user += [
            View("user_statistics", "user_id", statistics["user"], DAILY),
            View("user_behaviours", "user_id", behaviours, DAILY),
        ]
    return (
        *user,
        View("query_statistics", "query", statistics["query"], DAILY),
        View("item_versions", "item_id", attributes, STATIC),
        View("item_statistics", "item_id", statistics["item"], DAILY),
    )


SERVICES = {  # feature service -> key of the views it serves
    "ranking_requests": "user_id",
    "ranking_queries": "query",
    "ranking_items": "item_id",
}


def definitions(spec: SampleSpec, description: LogDescription, tables: Path) -> list[Any]:
    """Feast objects for `FeatureStore.apply`; `tables` is the folder of the source tables."""
    entities = {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
        for key in SERVICES.values()
    }
    feature_views = {view.name: _feature_view(view, entities[view.entity], tables) for view in views(spec, description)}
    services = []
    for name, key in SERVICES.items():
        members: list[Any] = [feature_views[view.name] for view in views(spec, description) if view.entity == key]
        if members:
            services.append(FeatureService(name=name, features=members))
    return [*entities.values(), *feature_views.values(), *services]


def _feature_view(view: View, entity: Entity, tables: Path) -> FeatureView:
    source: Any = FileSource(
        name=f"{view.name}_table",
        path=str(tables / f"{view.name}.parquet"),
        timestamp_field="ts",
        file_format=ParquetFormat(),
    )
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
