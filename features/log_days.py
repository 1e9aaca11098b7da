"""Log folders by their days: cut as they were known at the end of one, or continued by later ones."""

import os
import shutil
from pathlib import Path

import duckdb

from features.sql import text
from uniscale.artifacts import atomic_folder
from uniscale.errors import DataError
from uniscale.logs import TABLES, LogDescription


def days_of(logs: Path, table: str = "requests") -> list[str]:
    """Days of a table that have a file, ISO, oldest first."""
    return sorted({path.parent.name.removeprefix("day=") for path in (Path(logs) / table).glob("day=*/*.parquet")})


def days_between(logs: Path, first: str, last: str) -> list[str]:
    """Days with requests from `first` to `last`, both included; an empty end is the log's newest day.

    Raises:
        DataError: there is none.
    """
    days = days_of(logs)
    newest = days[-1] if days else ""
    first, last = first or newest, last or newest
    found = [day for day in days if first <= day <= last]
    if not found:
        has = f"{days[0]} to {days[-1]}" if days else "none"
        raise DataError(f"{logs} has no requests from {first} to {last}; it has days {has}")
    return found


def cut(logs: Path, day: str, out: Path) -> None:
    """Write what was known at the end of a day: requests up to it, and events up to it, so later labels are missing.

    Users and items stay whole: their attributes carry their own times.

    Raises:
        DataError: no request up to that day.
    """
    days_between(logs, "0000-00-00", day)
    with atomic_folder(Path(out)) as folder:
        _copy(Path(logs), folder, until=day)


def extend(logs: Path, later: Path, out: Path) -> None:
    """Write a log folder continued by another one's days; events of a common day are those of both.

    Users and item versions that both know are those of `later`.

    Raises:
        DataError: the descriptions differ, or a day has requests in both.
    """
    logs, later = Path(logs), Path(later)
    if LogDescription.load(logs) != LogDescription.load(later):
        raise DataError(f"{later}/description.json differs from that of {logs}: only logs of one source go together")
    common = sorted(set(days_of(logs)) & set(days_of(later)))
    if common:
        raise DataError(
            f"{logs} and {later} both have requests on {', '.join(common[:5])}: a day comes from one of them"
        )
    with atomic_folder(Path(out)) as folder:
        _copy(logs, folder)
        for name, table in TABLES.items():
            if table.by_day:
                for file in sorted((later / name).glob("day=*/*.parquet")):
                    _link(file, folder / name / file.parent.name / f"later-{file.name}")
            elif (later / f"{name}.parquet").exists():
                old, new = (f"read_parquet({text(place / f'{name}.parquet')})" for place in (logs, later))
                with duckdb.connect() as connection:
                    merged = connection.sql(
                        f"SELECT * FROM {new} UNION ALL BY NAME "
                        f"SELECT old.* FROM {old} old ANTI JOIN {new} new USING ({', '.join(table.key)})"
                    )
                    (folder / f"{name}.parquet").unlink(missing_ok=True)
                    merged.write_parquet(str(folder / f"{name}.parquet"), compression="zstd")


def _copy(logs: Path, folder: Path, until: str = "9999-99-99") -> None:
    shutil.copy(logs / "description.json", folder / "description.json")
    for name, table in TABLES.items():
        if not table.by_day and (logs / f"{name}.parquet").exists():
            shutil.copy(logs / f"{name}.parquet", folder / f"{name}.parquet")
        for file in sorted((logs / name).glob("day=*/*.parquet")) if table.by_day else []:
            if file.parent.name.removeprefix("day=") <= until:
                _link(file, folder / name / file.parent.name / file.name)


def _link(file: Path, target: Path) -> None:
    """The same file under another name where one file system holds both, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copy(file, target)
