"""Raw feature columns to model inputs, as the sample job does it: ids hashed, statistics of the unknown filled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.catalogue import missing_value, raw_column
from uniscale.errors import ServingError
from uniscale.hashing import hash64, hash_many
from uniscale.samples import Feature, SampleSpec

ONLINE_BLOCKS = ("user", "query")  # request-level blocks that come from the store; context comes with the request


class FeatureStoreError(ServingError):
    """The online store could not be read; the service answers by popularity and says so."""


@dataclass(frozen=True)
class UserFeatures:
    """What the online store knows of a request's user and query, as model inputs."""

    values: dict[str, int | float]  # request-level user and query features: hashed ids, numbers
    behaviours: dict[str, NDArray]  # behaviour features, oldest first, each (B,)
    behaviour_items: list[str]  # (B,) item ids
    behaviour_ts: NDArray[np.int64]  # (B,) seconds since 1970


class UserInputs:
    """Turns raw user and query columns into model inputs; what is the same for every request is worked out once."""

    def __init__(self, spec: SampleSpec):
        request = [f for f in spec.select("request") if f.block in ONLINE_BLOCKS]
        self._ids = [(f.name, raw_column(f)) for f in request if f.kind == "id"]
        self._numbers = [(f.name, raw_column(f), _default(f)) for f in request if f.kind != "id"]
        self._behaviours = [(f.name, raw_column(f)) for f in spec.select("behaviour")]

    def __call__(self, raw: Mapping[str, Any]) -> UserFeatures:
        """Inputs of one user and query; a column that is absent or None is missing."""
        values: dict[str, int | float] = {}
        for name, column in self._ids:
            value = raw.get(column)
            values[name] = 0 if value is None else hash64(value)
        for name, column, default in self._numbers:
            value = raw.get(column)
            values[name] = default if value is None else value
        items = raw.get("behaviour_item_id") or []
        behaviours = {
            # A list in the online store cannot hold a null: Feast gives "" for what the samples hash to 0.
            name: hash_many(value or None for value in raw.get(column) or [None] * len(items))
            for name, column in self._behaviours
        }
        instants = (
            raw.get("behaviour_ts") if items else None
        )  # on-demand features may read them and a model nothing else
        return UserFeatures(values, behaviours, items, np.array(instants or (), np.int64))


def item_column(feature: Feature, latest: pa.Table) -> NDArray:
    """A candidate feature of every item, (items,), from the table of raw columns.

    Raises:
        ServingError: the table lacks the feature's raw column.
    """
    name = raw_column(feature)
    if name not in latest.column_names:
        raise ServingError(
            f"feature {feature.name} needs column {name}, the feature store gives {latest.column_names}: "
            "deploy the models with the features they were trained on"
        )
    if feature.kind == "id":
        return hash_many(latest[name].to_pylist())
    values = latest[name].cast(pa.float32()).to_numpy(zero_copy_only=False)
    return np.where(np.isnan(values), np.float32(_default(feature)), values)


def context_id(value: object) -> int:
    """A context value as the id it hashes to: the string that the logs' adapters and Spark's cast write, null to 0."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return hash64("true" if value else "false")
    return hash64(str(value))


def _default(feature: Feature) -> float:
    default = missing_value(feature)
    return float("nan") if default is None else default
