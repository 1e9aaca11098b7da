"""Point-in-time feature tables in DuckDB SQL: what was known of a user, query or item at each stamp, and no more.

Daily statistics are stamped at the start of a day and sum events strictly before it. They are written for every day on
which they may differ from zero and for the first on which they are zero again, so a retrieval looks back one day only
(the time-to-live of their views), however long the history.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from features.behaviours import write_behaviours
from features.catalogue import CATEGORY_LEVELS, RATE_EXPOSURES, RATE_PRIOR, counts, rate_name
from features.sql import quoted, text
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.sections import FeatureConfig

CATEGORY_SEPARATOR = " > "


def open_logs(connection: duckdb.DuckDBPyConnection, logs: Path) -> None:
    """Register the log tables of a clean folder as views of the same names."""
    for name in ("users", "items"):
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet({text(Path(logs) / f'{name}.parquet')})")
    for name in ("requests", "exposures", "events"):
        files = Path(logs) / name / "*" / "*.parquet"
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet({text(files)}, hive_partitioning = false)")


def request_days(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """First and last day that have requests, in days since 1970.

    Raises:
        DataError: there is no request.
    """
    first, last = connection.execute(f"SELECT min({day_number()}), max({day_number()}) FROM requests").fetchall()[0]
    if first is None:
        raise DataError("the logs hold no request: bring logs with requests, or check what the ingest step quarantined")
    return int(first), int(last)


def last_day(connection: duckdb.DuckDBPyConnection) -> int:
    """Last day of requests or events, in days since 1970."""
    both = "SELECT ts FROM requests UNION ALL SELECT ts FROM events"
    return int(connection.execute(f"SELECT max({day_number()}) FROM ({both})").fetchall()[0][0])


def day_number(ts: str = "ts") -> str:
    """SQL of a timestamp's UTC day, in days since 1970."""
    return f"CAST(epoch_us({ts}) // 86400000000 AS INTEGER)"


def write_tables(
    connection: duckdb.DuckDBPyConnection,
    config: FeatureConfig,
    description: LogDescription,
    end_day: int,
    folder: Path,
) -> dict[str, int]:
    """Compute every feature table that the dataset supplies, with stamps up to the start of `end_day`, and write it.

    Returns:
        Rows of each table.
    """
    item_versions(connection, description)
    item_statistics(connection, config, description, end_day)
    query_statistics(connection, config, description, end_day)
    names = ["item_versions", "item_statistics", "query_statistics"]
    if description.profile:
        user_profile(connection, description)
        names.append("user_profile")
    if description.has_users:
        user_statistics(connection, config, description, end_day)
        names.append("user_statistics")
    folder.mkdir()
    rows = {}
    for name in names:
        path = folder / f"{name}.parquet"
        connection.execute(f"COPY {name} TO {text(path)} (FORMAT parquet, COMPRESSION zstd)")
        rows[name] = connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
    if description.has_users:
        path = folder / "user_behaviours.parquet"
        rows["user_behaviours"] = write_behaviours(connection, config, end_day, path)
    return rows


def item_versions(connection: duckdb.DuckDBPyConnection, description: LogDescription) -> None:
    """Create `item_versions`: item_id, ts, title, and the raw `item_*` columns in force from ts on.

    An item's first version counts from the start of its day: nothing can be asked of the item earlier that day, and
    item features are retrieved as of the day's start.
    """
    categories = ", ".join(
        f"CASE WHEN len(category) >= {level} THEN array_to_string(category[1:{level}], '{CATEGORY_SEPARATOR}') END "
        f"AS item_category_{level}"
        for level in range(1, CATEGORY_LEVELS + 1)
    )
    extra = [f"CAST({quoted(name)} AS VARCHAR) AS {quoted('item_' + name)}" for name in description.item_categories]
    extra += [f"CAST({quoted(name)} AS FLOAT) AS {quoted('item_' + name)}" for name in description.item_numbers]
    connection.execute(f"""
        CREATE TABLE item_versions AS
        SELECT item_id,
            CASE WHEN row_number() OVER (PARTITION BY item_id ORDER BY valid_from) = 1
                THEN date_trunc('day', valid_from) ELSE valid_from END AS ts,
            title, {categories}, nullif(brand, '') AS item_brand, nullif(seller, '') AS item_seller,
            {", ".join([*extra, "CAST(price AS FLOAT) AS item_price"])}
        FROM items ORDER BY item_id, ts""")


def user_profile(connection: duckdb.DuckDBPyConnection, description: LogDescription) -> None:
    """Create `user_profile`: user_id, ts, `user_<name>` strings; a profile has one version, known from the start."""
    columns = "".join(f", CAST({quoted(name)} AS VARCHAR) AS {quoted('user_' + name)}" for name in description.profile)
    connection.execute(f"""
        CREATE TABLE user_profile AS
        SELECT user_id, (SELECT date_trunc('day', min(ts)) FROM requests) AS ts{columns} FROM users ORDER BY user_id""")


def user_statistics(
    connection: duckdb.DuckDBPyConnection, config: FeatureConfig, description: LogDescription, end_day: int
) -> None:
    """Create `user_statistics`: user_id, ts and the columns of `features.catalogue.user_statistics`."""
    longest = max(config.windows_days)
    acted = ", ".join(text(event) for event in counts(description).values())
    connection.execute(f"""
        CREATE TEMP TABLE user_day AS
        SELECT user_id, {day_number("e.ts")} AS day, {_count_columns(description)},
            sum(v.item_price) FILTER (type IN ({acted})) AS spent,
            count(v.item_price) FILTER (type IN ({acted})) AS priced
        FROM events e ASOF LEFT JOIN item_versions v ON e.item_id = v.item_id AND e.ts >= v.ts
        GROUP BY ALL""")
    sums = [(count, window) for window in config.windows_days for count in counts(description)]
    columns = [f"{_rolling(count, window)} AS user_{count}_{window}d" for count, window in sums]
    mean = f"{_rolling('spent', longest)} / greatest({_rolling('priced', longest)}, 1) AS user_mean_price_{longest}d"
    _statistics(connection, "user_statistics", "user_id", "user_day", [*columns, mean], config, end_day)


def query_statistics(
    connection: duckdb.DuckDBPyConnection, config: FeatureConfig, description: LogDescription, end_day: int
) -> None:
    """Create `query_statistics`: query, ts and the columns of `features.catalogue.query_statistics`.

    An event counts for the query of the request it names, on the day of the event.
    """
    names = ("searches", *counts(description))
    zeros = ", ".join(f"0 AS {name}" for name in counts(description))
    connection.execute(f"""
        CREATE TEMP TABLE query_day AS
        SELECT query, day, {", ".join(f"sum({name}) AS {name}" for name in names)} FROM (
            SELECT query, {day_number()} AS day, 1 AS searches, {zeros} FROM requests WHERE query IS NOT NULL
            UNION ALL BY NAME
            SELECT r.query, {day_number("e.ts")} AS day, 0 AS searches, {_flag_columns(description)}
            FROM events e JOIN requests r ON e.request_id = r.request_id WHERE r.query IS NOT NULL
        ) GROUP BY query, day""")
    columns = [f"{_rolling(name, w)} AS query_{name}_{w}d" for w in config.windows_days for name in names]
    _statistics(connection, "query_statistics", "query", "query_day", columns, config, end_day)


def item_statistics(
    connection: duckdb.DuckDBPyConnection, config: FeatureConfig, description: LogDescription, end_day: int
) -> None:
    """Create `item_statistics`: item_id, ts and the columns of `features.catalogue.item_statistics`, all domains."""
    names = ("exposures", *counts(description))
    zeros = ", ".join(f"0 AS {name}" for name in counts(description))
    connection.execute(f"""
        CREATE TEMP TABLE item_day AS
        SELECT item_id, day, {", ".join(f"sum({name}) AS {name}" for name in names)} FROM (
            SELECT item_id, {day_number()} AS day, 1 AS exposures, {zeros} FROM exposures
            UNION ALL BY NAME
            SELECT item_id, {day_number()} AS day, 0 AS exposures, {_flag_columns(description)} FROM events
        ) GROUP BY item_id, day""")
    longest, primary = max(config.windows_days), next(iter(counts(description)))
    columns = [f"{_rolling(name, w)} AS item_{name}_{w}d" for w in config.windows_days for name in names]
    columns.append(
        f"({_rolling(primary, longest)} + {RATE_PRIOR * RATE_EXPOSURES}) / ({_rolling('exposures', longest)} + "
        f"{RATE_EXPOSURES}) AS {rate_name(config, description)}"
    )
    _statistics(connection, "item_statistics", "item_id", "item_day", columns, config, end_day)


def _statistics(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    entity: str,
    daily: str,
    columns: Sequence[str],
    config: FeatureConfig,
    end_day: int,
) -> None:
    """One row a day from an entity's active day until its longest window has emptied, that first zero included."""
    names = [column[0] for column in connection.execute(f"SELECT * FROM {daily} LIMIT 0").description]
    filled = ", ".join(f"coalesce({name}, 0) AS {name}" for name in names if name not in (entity, "day"))
    longest = max(config.windows_days)
    windows = ", ".join(
        f"w{window} AS (PARTITION BY {entity} ORDER BY day RANGE BETWEEN {window} PRECEDING AND 1 PRECEDING)"
        for window in config.windows_days
    )
    connection.execute(f"""
        CREATE TABLE {table} AS
        WITH grid AS (
            SELECT DISTINCT {entity}, unnest(range(day, least(day + {longest + 1}, {end_day}) + 1)) AS day FROM {daily}
        ), filled AS (
            SELECT {entity}, CAST(day AS INTEGER) AS day, {filled} FROM grid LEFT JOIN {daily} USING ({entity}, day)
        )
        SELECT {entity}, to_timestamp(86400 * day) AS ts, {", ".join(columns)}
        FROM filled WINDOW {windows} ORDER BY {entity}, ts""")


def _rolling(name: str, window: int) -> str:
    """Sum over the `window` days before a day."""
    return f"CAST(coalesce(sum({name}) OVER w{window}, 0) AS FLOAT)"


def _count_columns(description: LogDescription) -> str:
    return ", ".join(f"count(*) FILTER (type = {text(event)}) AS {name}" for name, event in counts(description).items())


def _flag_columns(description: LogDescription) -> str:
    return ", ".join(f"CAST(type = {text(event)} AS INTEGER) AS {name}" for name, event in counts(description).items())
