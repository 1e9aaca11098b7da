"""The log contract: which tables a dataset has, their columns, and what an adapter declares about itself.

A log folder holds `description.json` (a `LogDescription`), `users.parquet`, `items.parquet`, and one folder a table
partitioned by day for the rest: `requests/day=2026-01-05/*.parquet`. Times are UTC timestamps in microseconds.
Source of the contract: UniScale (arXiv text, 3.1 and 3.3).
"""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from uniscale.artifacts import read_json, write_json
from uniscale.errors import DataError

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, whether null is allowed, its range, and the table.column it must refer to."""

    name: str
    type: pa.DataType
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    refers_to: str | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Table:
    """One table: its columns, its key (unique together), and whether it is partitioned by day."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    by_day: bool = True
    required: bool = True


STRINGS = pa.list_(pa.string())
FLOATS = pa.list_(pa.float32())
MAX_ID, MAX_TEXT = 256, 1024

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "users",
            (
                Column("user_id", pa.string(), max_length=MAX_ID),
                Column("registered_at", TIMESTAMP, nullable=True),
            ),
            key=("user_id",),
            by_day=False,
        ),
        Table(
            "items",
            (
                Column("item_id", pa.string(), max_length=MAX_ID),
                Column("valid_from", TIMESTAMP),
                Column("title", pa.string(), nullable=True, max_length=MAX_TEXT),
                Column("category", STRINGS),  # path from the root, one to three levels used
                Column("brand", pa.string(), nullable=True),
                Column("price", pa.float64(), minimum=0.0),
                Column("seller", pa.string(), nullable=True),
                Column("embedding", FLOATS, nullable=True),  # frozen content embedding
            ),
            key=("item_id", "valid_from"),
            by_day=False,
        ),
        Table(
            "requests",
            (
                Column("request_id", pa.string(), max_length=MAX_ID),
                Column("domain", pa.string()),
                Column("scenario", STRINGS),  # a request may belong to several
                Column("user_id", pa.string(), refers_to="users.user_id"),
                Column("ts", TIMESTAMP),
                Column("query", pa.string(), nullable=True, max_length=MAX_TEXT),
            ),
            key=("request_id",),
        ),
        Table(
            "candidates",
            (
                Column("request_id", pa.string(), refers_to="requests.request_id"),
                Column("item_ids", STRINGS),
                Column("scores", FLOATS, nullable=True),
            ),
            key=("request_id",),
            required=False,
        ),
        Table(
            "exposures",
            (
                Column("request_id", pa.string(), refers_to="requests.request_id"),
                Column("item_id", pa.string(), refers_to="items.item_id"),
                Column("position", pa.int32(), nullable=True, minimum=1),
                Column("ts", TIMESTAMP),
            ),
            key=("request_id", "item_id"),
        ),
        Table(
            "events",
            (
                Column("event_id", pa.string(), max_length=MAX_ID),
                Column("user_id", pa.string(), refers_to="users.user_id"),
                Column("item_id", pa.string(), refers_to="items.item_id"),
                Column("ts", TIMESTAMP),
                Column("domain", pa.string()),
                Column("type", pa.string()),  # click, cart, purchase, favourite, …
                Column("request_id", pa.string(), nullable=True, refers_to="requests.request_id"),
                Column("amount", pa.float64(), nullable=True, minimum=0.0),
            ),
            key=("event_id",),
        ),
    )
}


CLICK = "click"  # the event type of clicks; a task of any other type is a conversion


@dataclass(frozen=True)
class LogDescription:
    """What a dataset calls things and what it cannot supply; the pipeline adapts to it and says what it skipped.

    Extra columns of `users` (profile), `requests` (context) and `items` (item_categories, item_numbers) become
    features by being named here.
    """

    name: str
    domains: tuple[str, ...]  # the target domain first
    scenarios: tuple[str, ...]
    # task name -> event type that makes it positive, the primary task first; "click" is attributed as clicks are,
    # within samples.click_window_hours, any other type as conversions, within samples.conversion_window_days
    tasks: dict[str, str]
    profile: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    item_categories: tuple[str, ...] = ()
    item_numbers: tuple[str, ...] = ()
    has_candidates: bool = True  # the unexposed part of the candidate list is known
    has_text: bool = True
    has_embeddings: bool = True
    has_users: bool = True  # users return, so behaviours and user statistics mean something
    has_truth: bool = False  # a simulation with a truth table beside the logs
    randomised_column: str | None = None  # context column that is 1 where exposure order was random
    limits: tuple[str, ...] = field(default=())  # sentences for the report: what this source cannot show

    @property
    def target(self) -> str:
        """The domain that is served."""
        return self.domains[0]

    def save(self, folder: Path) -> None:
        """Write `description.json` into a log folder."""
        write_json(Path(folder) / "description.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "LogDescription":
        """Read `description.json` of a log folder.

        Raises:
            DataError: the file is missing, or has an unknown or missing key.
        """
        path = Path(folder) / "description.json"
        if not path.exists():
            raise DataError(
                f"no file {path}: the step that writes it has not finished, or this is no log folder; "
                "docs/your-own-logs.md says what one holds"
            )
        raw: dict[str, Any] = read_json(path)
        known = {f.name for f in fields(cls)}
        unknown, required = set(raw) - known, {"name", "domains", "scenarios", "tasks"} - set(raw)
        if unknown or required:
            raise DataError(
                f"{folder}/description.json: unknown keys {sorted(unknown)}, missing keys {sorted(required)}; "
                f"known keys are {sorted(known)}"
            )
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in raw.items()}
        return cls(**values)
