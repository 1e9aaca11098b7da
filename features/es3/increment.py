"""Which days a build writes itself and which it takes over from the samples of an earlier build.

A day's labels depend on the logs of the days within one tail of it, before (a sample there may be the better place for
an event) and after (events come late), and on nothing else of the logs. So a new day of logs opens no older one whose
tail was complete, and rows that come late for some day re-open the days within a tail of it. Features and queries of a
day that stays closed remain what was known when it was built, as the service saw it.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from features.es3.report import schema_hash
from features.splits import Splits
from uniscale.artifacts import content_hash, read_json, write_json
from uniscale.errors import DataError
from uniscale.logs import TABLES
from uniscale.samples import SampleSpec
from uniscale.sections import SamplesConfig

FILE = "days.json"  # beside the rows: what the next build needs to know of this one
# Settings that say which days are written, and not what is written of them.
OF_THE_SPLIT = {"warmup_days", "valid_days", "test_days"}


@dataclass(frozen=True)
class Made:
    """What samples were made of and what came out, day by day in ISO form."""

    recipe: dict[str, Any]  # settings that every row depends on
    logs: dict[str, str]  # day of the logs -> hash
    days: dict[str, dict[str, Any]]  # written day -> its counts

    @classmethod
    def load(cls, samples: Path) -> "Made":
        """Inverse of `save`.

        Raises:
            DataError: no samples folder.
        """
        return cls(**read_json(samples / FILE))

    def save(self, samples: Path) -> None:
        """Write it into a samples folder."""
        write_json(samples / FILE, {"recipe": self.recipe, "logs": self.logs, "days": self.days})


def recipe_of(features: Path, config: SamplesConfig, seed: int) -> dict[str, Any]:
    """What must be the same for rows of two builds to lie in one folder, but for the numbering of the items."""
    encoder = features / "text_encoder"
    return {
        "seed": seed,
        **{name: value for name, value in config.model_dump().items() if name not in OF_THE_SPLIT},
        "spec": content_hash(features / "spec.json"),
        "row_schema": schema_hash(SampleSpec.load(features)),
        "text_encoder": content_hash(encoder) if encoder.exists() else "",
    }


def hashes_of_days(logs: Path) -> dict[str, str]:
    """Hash of each day of a clean log folder, over the tables by day."""
    parts: dict[str, list[str]] = {}
    for table in TABLES:
        for folder in sorted((logs / table).glob("day=*")):
            parts.setdefault(folder.name.removeprefix("day="), []).append(f"{table}:{content_hash(folder)}")
    return {day: " ".join(hashes) for day, hashes in sorted(parts.items())}


def days_to_build(splits: Splits, logs: dict[str, str], earlier: Made | None) -> tuple[date, ...]:
    """The written days whose rows no earlier build has as these logs make them."""
    written = splits.days
    if earlier is None:
        return written
    changed = {day for day in logs.keys() | earlier.logs.keys() if logs.get(day) != earlier.logs.get(day)}
    opened = around(map(date.fromisoformat, changed), splits.tail_days)
    return tuple(day for day in written if day in opened or day.isoformat() not in earlier.days)


def around(days: Iterable[date], reach: int) -> set[date]:
    """The days and all within `reach` days of one of them."""
    return {day + timedelta(days=shift) for day in days for shift in range(-reach, reach + 1)}


def check_earlier(samples: Path, features: Path, earlier: Made, recipe: dict[str, Any]) -> None:
    """Whether rows of an earlier folder may stand beside rows of these features and settings.

    Raises:
        DataError: they may not, and why.
    """
    differ = sorted(name for name in recipe if recipe[name] != earlier.recipe.get(name))
    if differ:
        raise DataError(
            f"{samples} was built with another {', '.join(differ)}, so none of its days can be taken over: build the "
            "features with --previous, keep the settings, or build all days by leaving --previous out"
        )
    old, new = (
        pq.read_table(folder / "items.parquet", columns=["item_id"])["item_id"] for folder in (samples, features)
    )
    if not new.slice(0, len(old)).equals(old):
        raise DataError(
            f"the items of {features} are numbered otherwise than those of {samples}, whose rows hold these numbers: "
            "build the features with --previous, or build all days by leaving --previous out"
        )


def take_over(samples: Path, days: Iterable[date], out: Path) -> None:
    """Copy the rows of some days from an earlier samples folder into `out`."""
    for day in days:
        folder = Path("rows") / f"day={day}"
        if (samples / folder).exists():
            shutil.copytree(samples / folder, out / folder)
