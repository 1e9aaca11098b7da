"""The sample contract: columns of the list-wise rows that ES3 writes and every model reads.

A samples folder holds `manifest.json` (counts, splits, hashes), `spec.json` (a `SampleSpec`), `items.parquet` (the
frozen vectors of every item, by index) and `rows/day=…/domain=…/*.parquet`, one row a request (UniScale 3.3.2).
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from uniscale.artifacts import read_json, write_json
from uniscale.logs import TIMESTAMP


class Sampling(IntEnum):
    """Why a candidate is in a row; never a model input."""

    EXPOSED = 0
    UNEXPOSED = 1
    PSEUDO_POSITIVE = 2
    PSEUDO_NEGATIVE = 3


class LabelSource(IntEnum):
    """Where a positive label came from; never a model input."""

    NONE = 0
    IN_DOMAIN = 1
    CLICKED = 2  # cross-domain conversion on a search-clicked sample
    EXPOSED = 3  # cross-domain event on an exposed (for conversions: unclicked) sample
    UNEXPOSED = 4
    PSEUDO = 5  # the click or conversion that a searchified request was made from


class QueryRule(IntEnum):
    """Which rule wrote the query of a row; never a model input."""

    TYPED = 0
    OWN_HISTORY = 1
    CO_OCCURRENCE = 2
    NEAREST = 3


Level = Literal["request", "candidate", "behaviour"]
Kind = Literal["id", "count", "number"]


@dataclass(frozen=True)
class Feature:
    """One model input: its column, semantic block, kind, level, (ids) embedding table, and the feature view it is in.

    kind `id` is a pre-hashed int64, 0 for missing; `count` is non-negative and meant for log1p; `number` is used as
    is. Level `behaviour` columns are lists along the user's history, oldest first. A request brings the rest: its
    keys and context are in no view.
    """

    name: str
    block: str  # user | query | context | item | behaviour
    kind: Kind
    level: Level
    table: str = ""
    view: str = ""


@dataclass(frozen=True)
class SampleSpec:
    """What a samples folder offers a model: features, domains, scenarios, tasks and vector widths."""

    features: tuple[Feature, ...]
    domains: tuple[str, ...]  # the target (served) domain first
    scenarios: tuple[str, ...]
    tasks: tuple[str, ...]  # the primary task first
    content_dim: int  # width of the items' frozen content embedding, 0 when there is none
    text_dim: int  # width of the text encoder's space (titles and queries), 0 when there is no text
    max_behaviours: int

    def select(self, level: Level, kinds: tuple[Kind, ...] = ("id", "count", "number")) -> tuple[Feature, ...]:
        """Features of one level and some kinds, in the spec's order."""
        return tuple(f for f in self.features if f.level == level and f.kind in kinds)

    @property
    def views(self) -> tuple[str, ...]:
        """The feature views that hold some feature, in the features' order."""
        return tuple(dict.fromkeys(f.view for f in self.features if f.view))

    def without(self, views: Collection[str]) -> "SampleSpec":
        """What a model reads that leaves some feature views unread."""
        return replace(self, features=tuple(f for f in self.features if f.view not in views))

    def covers(self, other: "SampleSpec") -> bool:
        """Whether `other` is what a model reads of this: the same but for features left out."""
        return replace(self, features=tuple(f for f in self.features if f in other.features)) == other

    def as_json(self) -> dict[str, Any]:
        """A JSON-able form, which `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "SampleSpec":
        """Inverse of `as_json`."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in raw.items()}
        values["features"] = tuple(Feature(**feature) for feature in raw["features"])
        return cls(**values)

    def save(self, folder: Path) -> None:
        """Write `spec.json` into a folder."""
        write_json(Path(folder) / "spec.json", self.as_json())

    @classmethod
    def load(cls, folder: Path) -> "SampleSpec":
        """Read `spec.json` of a folder."""
        return cls.from_json(read_json(Path(folder) / "spec.json"))


def row_schema(spec: SampleSpec) -> pa.Schema:
    """Arrow schema of the list-wise rows of a spec (the `day` and `domain` partitions are in the path)."""
    columns: list[tuple[str, pa.DataType]] = [
        ("request_id", pa.string()),
        ("user_id", pa.string()),
        ("query", pa.string()),
        ("ts", TIMESTAMP),
        ("domain_index", pa.int8()),  # into spec.domains
        ("scenarios", _whole(pa.int8())),  # into spec.scenarios
        ("query_rule", pa.int8()),
        ("query_text", _whole(pa.float32())),  # empty when spec.text_dim is 0
        ("item", _whole(pa.int32())),  # index into items.parquet, 0 unknown
        ("sampling", _whole(pa.int8())),
        ("position", _whole(pa.int16())),  # 1-based, 0 for unexposed
    ]
    for task in spec.tasks:
        columns += [(task, _whole(pa.int8())), (f"{task}_source", _whole(pa.int8()))]
    columns += [("behaviour_index", _whole(pa.int32())), ("behaviour_ts", _whole(pa.int64()))]
    for feature in spec.features:
        scalar = pa.int64() if feature.kind == "id" else pa.float32()  # a missing number is null, a missing id 0
        listed = _whole(scalar) if feature.kind == "id" else pa.list_(scalar)
        columns.append((feature.name, scalar if feature.level == "request" else listed))
    return pa.schema(columns)


def _whole(element: pa.DataType) -> pa.DataType:
    """Lists whose elements are never null: Parquet keeps no level for an element to say so, and reads faster."""
    return pa.list_(pa.field("element", element, nullable=False))
