"""Hotel searches of Expedia (ICDM 2013 challenge) as a log folder: whole result lists with positions, clicks, bookings.

Source: Kaggle, "Personalize Expedia Hotel Searches", whose `train.csv` or Parquet copies of it are read as they are.
A request is a search, its query the destination, an item a property, whose version of a day carries that day's price.
A quarter of the searches were listed in random order (`random_bool`), which is what an off-policy estimate needs.
"""

from pathlib import Path

import duckdb

from features.adapters.layout import open_database, write_folder
from features.sql import text
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.sections import DataConfig

DESCRIPTION = LogDescription(
    name="expedia",
    domains=("search",),
    scenarios=("domestic", "international", "weekend", "family"),
    tasks={"click": "click", "conversion": "booking"},
    profile=("country", "past_stars"),
    context=("site", "nights", "days_ahead", "adults", "rooms", "random_order"),
    item_categories=("stars", "promotion"),
    item_numbers=("review", "location", "location_local", "historical_price"),
    has_candidates=False,
    has_text=False,
    has_embeddings=False,
    has_users=False,
    randomised_column="random_order",
    limits=(
        "Searches are anonymous: no user returns, so there are no behaviours and no user statistics.",
        "Every search has at least one click by the design of the sample, so click rates are not those of the site.",
        "The source gives no time for a click or a booking; one and ten minutes after the search are assumed.",
        "A price depends on the stay; a property's version of a day carries the median price over that day's searches, "
        "stamped at midnight, because it is what the shopper saw.",
        "Lists are complete, so nothing is known of what was retrieved and not shown, and ES3 has nothing to add.",
        "There is no text; queries are destination ids.",
        "Features of the pair of searcher and property (distance, affinity) are left out.",
    ),
)
IDS = (
    *("srch_id", "site_id", "visitor_location_country_id", "prop_country_id", "prop_id", "prop_starrating"),
    *("prop_brand_bool", "position", "promotion_flag", "srch_destination_id", "srch_length_of_stay"),
    *("srch_booking_window", "srch_adults_count", "srch_children_count", "srch_room_count"),
    *("srch_saturday_night_bool", "random_bool", "click_bool", "booking_bool"),
)
NUMBERS = (
    *("visitor_hist_starrating", "prop_review_score", "prop_location_score1", "prop_location_score2"),
    *("prop_log_historical_price", "price_usd", "gross_bookings_usd"),
)


def write_logs(config: DataConfig, out: Path) -> dict[str, int]:
    """Write the searches found at `config.input` (a .parquet or .csv file, or a folder of them) as a log folder.

    Returns:
        Rows of each table.

    Raises:
        DataError: nothing is there, or its columns are not those of the challenge.
    """
    connection = open_database(out)
    source = _source(connection, config.input)
    whole = [f"CAST({name} AS BIGINT) AS {name}" for name in IDS]
    real = [f"CASE WHEN isfinite(CAST({name} AS DOUBLE)) THEN CAST({name} AS DOUBLE) END AS {name}" for name in NUMBERS]
    columns = ", ".join(["CAST(date_time AS TIMESTAMP) AS date_time", *whole, *real])  # copies by pandas hold NaN
    connection.execute(f"CREATE TABLE impressions AS SELECT DISTINCT {columns} FROM {source}")
    connection.execute(f"""
        CREATE TABLE searches AS
        SELECT 's' || srch_id AS request_id, any_value(date_time) AT TIME ZONE 'UTC' AS ts,
            CAST(any_value(srch_destination_id) AS VARCHAR) AS query,
            mode(prop_country_id) = any_value(visitor_location_country_id) AS domestic,
            any_value(srch_saturday_night_bool) = 1 AS weekend, any_value(srch_children_count) > 0 AS family,
            'c' || any_value(visitor_location_country_id) AS country,
            CAST(CAST(round(any_value(visitor_hist_starrating)) AS INTEGER) AS VARCHAR) AS past_stars,
            CAST(any_value(site_id) AS VARCHAR) AS site,
            {_bucket("any_value(srch_length_of_stay)", 1, 2, 3, 5, 8)} AS nights,
            {_bucket("any_value(srch_booking_window)", 1, 4, 8, 15, 31, 91)} AS days_ahead,
            CAST(least(any_value(srch_adults_count), 4) AS VARCHAR) AS adults,
            CAST(least(any_value(srch_room_count), 3) AS VARCHAR) AS rooms,
            CAST(any_value(random_bool) AS VARCHAR) AS random_order
        FROM impressions GROUP BY srch_id;
        CREATE TABLE users AS
        SELECT request_id AS user_id, CAST(NULL AS TIMESTAMPTZ) AS registered_at, country, past_stars FROM searches;
        CREATE TABLE requests AS
        SELECT request_id, 'search' AS domain,
            list_filter([
                CASE WHEN domestic THEN 'domestic' ELSE 'international' END,
                CASE WHEN weekend THEN 'weekend' END, CASE WHEN family THEN 'family' END
            ], lambda s: s IS NOT NULL) AS scenario,
            request_id AS user_id, ts, query, site, nights, days_ahead, adults, rooms, random_order
        FROM searches;
        CREATE TABLE items AS
        SELECT 'h' || prop_id AS item_id, CAST(CAST(date_time AS DATE) AS TIMESTAMP) AT TIME ZONE 'UTC' AS valid_from,
            CAST(NULL AS VARCHAR) AS title, ['country ' || any_value(prop_country_id)] AS category,
            CASE max(prop_brand_bool) WHEN 1 THEN 'chain' ELSE 'independent' END AS brand, median(price_usd) AS price,
            CAST(NULL AS VARCHAR) AS seller, CAST(NULL AS FLOAT[]) AS embedding,
            CAST(max(prop_starrating) AS VARCHAR) AS stars, CAST(max(promotion_flag) AS VARCHAR) AS promotion,
            max(prop_review_score) / 5 AS review, max(prop_location_score1) / 7 AS location,
            max(prop_location_score2) AS location_local,
            max(prop_log_historical_price) / 7 AS historical_price
        FROM impressions GROUP BY prop_id, CAST(date_time AS DATE);
        CREATE TABLE exposures AS
        SELECT 's' || srch_id AS request_id, 'h' || prop_id AS item_id, CAST(position AS INTEGER) AS position,
            date_time AT TIME ZONE 'UTC' AS ts
        FROM impressions;
        CREATE TABLE events AS
        SELECT type || '-' || srch_id || '-' || prop_id AS event_id, 's' || srch_id AS user_id,
            'h' || prop_id AS item_id,
            (date_time + INTERVAL 1 MINUTE * CASE type WHEN 'click' THEN 1 ELSE 10 END) AT TIME ZONE 'UTC' AS ts,
            'search' AS domain, type, 's' || srch_id AS request_id,
            CASE type WHEN 'booking' THEN gross_bookings_usd END AS amount
        FROM (
            SELECT *, 'click' AS type FROM impressions WHERE click_bool = 1
            UNION ALL SELECT *, 'booking' AS type FROM impressions WHERE booking_bool = 1
        )""")
    return write_folder(connection, DESCRIPTION, out)


def _source(connection: duckdb.DuckDBPyConnection, path: str) -> str:
    """SQL that reads the input, after a look at its columns."""
    place = Path(path)
    kind = next(
        (kind for kind in ("parquet", "csv") if place.suffix == f".{kind}" or any(place.glob(f"*.{kind}"))), None
    )
    if not path or not place.exists() or kind is None:
        raise DataError(
            f"data.input = {path!r} holds no hotel searches: give the challenge's train.csv, a Parquet copy, or a "
            "folder of them (uniscale run --data expedia --input <path>)"
        )
    files = text(place / f"*.{kind}" if place.is_dir() else place)
    source = f"read_parquet({files})" if kind == "parquet" else f"read_csv({files}, nullstr = 'NULL')"
    try:
        found = {row[0] for row in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
    except duckdb.Error as error:
        raise DataError(f"data.input = {path!r} cannot be read: {error}") from None
    missing = {"date_time", *IDS, *NUMBERS} - found
    if missing:
        raise DataError(
            f"data.input = {path!r} lacks the columns {sorted(missing)} of the Expedia challenge; other logs "
            "come in by data.source=logs (features/adapters/__init__.py says how)"
        )
    return source


def _bucket(value: str, *floors: int) -> str:
    """SQL of the largest floor at or below a value, as a string ("0" below them all)."""
    return f"CAST(list_max(list_filter([0, {', '.join(map(str, floors))}], lambda f: f <= {value})) AS VARCHAR)"
