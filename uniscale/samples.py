"""The sample contract: columns of the list-wise rows that ES3 writes and every model reads.

A samples folder holds `manifest.json` (counts, splits, hashes), `spec.json` (a `SampleSpec`), `items.parquet` (the
frozen vectors of every item, by index) and `rows/day=…/domain=…/*.parquet`, one row a request (UniScale 3.3.2).
"""

from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from uniscale.artifacts import read_json, write_json


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
    """One model input: its column, semantic block, kind, level, and (ids) the embedding table it looks up.

    kind `id` is a pre-hashed int64, 0 for missing; `count` is non-negative and meant for log1p; `number` is used as
    is. Level `behaviour` columns are lists along the user's history, oldest first.
    """

    name: str
    block: str  # user | query | context | item | behaviour
    kind: Kind
    level: Level
    table: str = ""


# Columns that every rows file has besides the features. Candidate-level ones are lists of equal length.
REQUEST_COLUMNS = ("request_id", "user_id", "query", "ts", "domain_index", "scenarios", "query_rule", "query_text")
CANDIDATE_COLUMNS = ("item", "sampling", "position")  # then, per task: <task>, <task>_source
BEHAVIOUR_COLUMNS = ("behaviour_index", "behaviour_ts")  # item index and unix seconds, beside the id features


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

    def as_json(self) -> dict[str, Any]:
        """A JSON-able form, which `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "SampleSpec":
        """Inverse of `as_json`."""
        features = tuple(Feature(**feature) for feature in raw["features"])
        rest = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return cls(**{**rest, "features": features})

    def save(self, folder: Path) -> None:
        """Write `spec.json` into a folder."""
        write_json(Path(folder) / "spec.json", self.as_json())

    @classmethod
    def load(cls, folder: Path) -> "SampleSpec":
        """Read `spec.json` of a folder."""
        return cls.from_json(read_json(Path(folder) / "spec.json"))
