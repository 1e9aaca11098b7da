"""Qilin (Xiaohongshu, SIGIR 2025) as a log folder: note searches as the served domain, the feed as the second one.

Source: the Parquet folders of the release, or CSV copies of them, where nested columns are printed NumPy arrays.
A request is a search or a feed request, its list the notes shown with clicks, saves, likes, comments and shares. A
search's candidates are its shown notes and what the release's two retrievers, dense and BM25, found for its query.
"""

from pathlib import Path

import duckdb

from features.adapters.files import Source
from features.adapters.layout import day_parts, open_database, write_folder
from uniscale.logs import LogDescription
from uniscale.sections import DataConfig

EVENTS = {"click": "click", "collect": "favourite", "like": "like", "comment": "comment", "share": "share"}
DESCRIPTION = LogDescription(
    name="qilin",
    domains=("search", "feed"),
    scenarios=("weekday", "weekend", "evening"),
    tasks={"click": "click", "favourite": "favourite"},
    profile=("gender", "age", "platform", "location"),
    context=("query_source",),
    item_categories=("kind", "commercial"),
    item_numbers=("video_length", "images", "text_length"),
    has_embeddings=False,
    limits=(
        "Candidates are what the release's authors retrieved for a query (dense and BM25, over all notes), not what "
        "the app retrieved and held back; a feed request has none.",
        "The times of clicks and of what follows them are unknown; one and two minutes after a note was shown are "
        "assumed.",
        "A request gathers every page and return to its list, so it may last for hours; positions repeat in a feed.",
        "Nothing was bought and notes have no price: the price is 0, and saving a note is the second task.",
        "A note's creation time is unknown, so every note exists from the day before the first request and no item "
        "is ever new; its counts of views, clicks and likes cover the log's own days and are left out.",
        "The profile is a snapshot of unknown date, and its forty anonymous numbers are left out.",
        "The lists were shown in the app's own order, so no off-policy estimate is possible.",
        "Requests with generated answers (the table dqa), images and the release's split are not read; the split is "
        "by time, and a feed's query, which its authors made of earlier titles, is not a query.",
    ),
)
TABLES = {
    "search_train": ("search_idx", "user_idx", "query", "query_from_type", "search_result_details_with_idx"),
    "search_test": ("search_idx", "user_idx", "query", "query_from_type", "search_result_details_with_idx"),
    "recommendation_train": ("request_idx", "user_idx", "rec_result_details_with_idx"),
    "recommendation_test": ("request_idx", "user_idx", "rec_result_details_with_idx"),
    "notes": (
        *("note_idx", "note_title", "note_type", "commercial_flag", "video_duration", "image_num", "content_length"),
        *("taxonomy1_id", "taxonomy2_id", "taxonomy3_id"),
    ),
    "user_feat": ("user_idx", "gender", "age", "platform", "location"),
}


def write_logs(config: DataConfig, out: Path) -> dict[str, int]:
    """Write the release found in the folder `config.input` as a log folder.

    Returns:
        Rows of each table.

    Raises:
        DataError: a table of the release is not there, cannot be read, or has other columns.
    """
    connection = open_database(out)
    source = Source("Qilin", config.input)
    lists, retrieved = [], []
    for table, columns in TABLES.items():
        found = source.view(connection, table, columns)
        if table.startswith(("search", "recommendation")):
            lists.append(_lists(table, found))
            retrieved += [_retrieved(table, name, found[name]) for name in RETRIEVERS if name in found]
    connection.execute(f"CREATE TABLE lists AS {' UNION ALL '.join(lists)}")
    connection.execute(f"CREATE TABLE retrieved AS {' UNION ALL '.join(retrieved) or _NONE_RETRIEVED}")
    connection.execute(_TABLES)
    _items_and_users(connection)
    return write_folder(connection, DESCRIPTION, out)


RETRIEVERS = ("dpr_results", "bm25_results")
_NONE_RETRIEVED = "SELECT '' AS request_id, 0 AS retriever, 0 AS place, '' AS item_id WHERE false"


def _lists(table: str, found: dict[str, str]) -> str:
    """SQL of a table's shown notes, one a row: each entry of the list as JSON."""
    search = table.startswith("search")
    details = "search_result_details_with_idx" if search else "rec_result_details_with_idx"
    printed = f"regexp_extract_all({details}, '\\{{[^}}]*\\}}')"
    entries = (
        f"""list_transform({printed}, lambda e: CAST(replace(replace(e, '''', '"'), ': nan', ': null') AS JSON))"""
        if found[details] == "VARCHAR"
        else f"list_transform({details}, lambda e: to_json(e))"
    )
    return f"""
        SELECT {_request(table)} AS request_id, '{"search" if search else "feed"}' AS domain,
            {_id("u", "user_idx")} AS user_id,
            {"nullif(trim(query), '')" if search else "NULL"} AS query,
            {_id("", "query_from_type") if search else "NULL"} AS query_source, unnest({entries}) AS entry
        FROM raw_{table}"""


def _retrieved(table: str, column: str, kind: str) -> str:
    """SQL of what one retriever found, in its order: the column holds pairs of note and score."""
    notes = (
        f"regexp_extract_all({column}, 'array\\(\\[\\s*([^,\\s]+)', 1)"
        if kind == "VARCHAR"
        else f"list_transform({column}, lambda pair: pair[1])"
    )
    return f"""
        SELECT request_id, {RETRIEVERS.index(column)} AS retriever, place, {_id("n", "note")} AS item_id
        FROM (
            SELECT {_request(table)} AS request_id, unnest({notes}) AS note, generate_subscripts({notes}, 1) AS place
            FROM raw_{table}
        )"""


def _request(table: str) -> str:
    return _id("s", "search_idx") if table.startswith("search") else _id("f", "request_idx")


def _id(letter: str, value: str) -> str:
    """SQL of a name from a number that may be written 7, 7.0 or 7e0."""
    return f"'{letter}' || CAST(CAST({value} AS DOUBLE) AS BIGINT)"


def _number(name: str) -> str:
    return f"CAST(entry ->> '{name}' AS DOUBLE)"


_TIME = "coalesce(entry ->> 'search_timestamp', entry ->> 'request_timestamp', entry ->> 'timestamp')"
_TABLES = f"""
    CREATE TABLE shown AS  -- searches are stamped in seconds, feeds in milliseconds
    SELECT request_id, any_value(domain) AS domain, any_value(user_id) AS user_id, item_id, min(ts) AS ts,
        CAST(arg_min(position, ts) AS INTEGER) AS position,
        {", ".join(f"max(n_{kind}) AS n_{kind}" for kind in EVENTS.values())}
    FROM (
        SELECT request_id, domain, user_id, 'n' || (entry ->> 'note_idx') AS item_id,
            epoch_ms(CAST(stamp * CASE WHEN stamp < 1e11 THEN 1000 ELSE 1 END AS BIGINT)) AT TIME ZONE 'UTC' AS ts,
            {_number("position")} AS position, {
    ", ".join(f"{_number(name)} AS n_{kind}" for name, kind in EVENTS.items())
}
        FROM (SELECT *, CAST({_TIME} AS DOUBLE) AS stamp FROM lists)
    ) GROUP BY request_id, item_id;
    CREATE TABLE requests AS
    SELECT request_id, any_value(domain) AS domain,
        {day_parts("min(ts)", 8)} AS scenario,
        any_value(user_id) AS user_id, min(ts) AS ts, any_value(query) AS query, any_value(query_source) AS query_source
    FROM (SELECT DISTINCT request_id, query, query_source FROM lists) JOIN shown USING (request_id) GROUP BY request_id;
    CREATE TABLE exposures AS SELECT request_id, item_id, position, ts FROM shown;
    CREATE TABLE candidates AS  -- shown notes first, then the retrievers' in turns
    SELECT request_id, list(item_id ORDER BY retriever, place, item_id) AS item_ids, CAST(NULL AS FLOAT[]) AS scores
    FROM (
        SELECT request_id, item_id, min(place) AS place, min(retriever) AS retriever FROM (
            SELECT request_id, item_id, -1 AS retriever, position AS place FROM shown WHERE domain = 'search'
            UNION ALL SELECT request_id, item_id, 0, place * 2 + retriever FROM retrieved
        ) GROUP BY request_id, item_id
    ) SEMI JOIN retrieved USING (request_id) GROUP BY request_id;
    CREATE TABLE events AS
    SELECT type || '-' || request_id || '-' || item_id AS event_id, user_id, item_id,
        ts + INTERVAL 1 MINUTE * CASE type WHEN 'click' THEN 1 ELSE 2 END AS ts, domain, type, request_id,
        CAST(NULL AS DOUBLE) AS amount
    FROM (
        {" UNION ALL ".join(f"SELECT *, '{kind}' AS type FROM shown WHERE n_{kind} > 0" for kind in EVENTS.values())}
    );
"""


def _items_and_users(connection: duckdb.DuckDBPyConnection) -> None:
    """Tables of the notes and users that the release describes or its logs name."""
    number = {
        name: f"ln(1 + greatest(TRY_CAST({name} AS DOUBLE), 0)) / 5"
        for name in ("video_duration", "image_num", "content_length")
    }
    connection.execute(f"""
        CREATE TABLE known_notes AS
        SELECT {_id("n", "note_idx")} AS item_id, nullif(trim(note_title), '') AS title,
            list_filter([taxonomy1_id, taxonomy2_id, taxonomy3_id], lambda c: c IS NOT NULL AND c <> '') AS category,
            CASE CAST(note_type AS DOUBLE) WHEN 1 THEN 'images' WHEN 2 THEN 'video' END AS kind,
            CAST(CAST(CAST(commercial_flag AS DOUBLE) AS BIGINT) AS VARCHAR) AS commercial,
            {number["video_duration"]} AS video_length, {number["image_num"]} AS images,
            {number["content_length"]} AS text_length
        FROM raw_notes;
        CREATE TABLE items AS
        SELECT item_id, (SELECT date_trunc('day', min(ts)) - INTERVAL 1 DAY FROM requests) AS valid_from, title,
            CASE WHEN len(category) > 0 THEN category ELSE ['unknown'] END AS category, CAST(NULL AS VARCHAR) AS brand,
            0.0::DOUBLE AS price, CAST(NULL AS VARCHAR) AS seller, CAST(NULL AS FLOAT[]) AS embedding,
            kind, commercial, video_length, images, text_length
        FROM (
            SELECT item_id FROM known_notes UNION SELECT item_id FROM exposures
            UNION SELECT unnest(item_ids) FROM candidates
        ) LEFT JOIN known_notes USING (item_id);
        CREATE TABLE users AS
        SELECT user_id, CAST(NULL AS TIMESTAMPTZ) AS registered_at, gender, age, platform, location
        FROM (
            SELECT user_id FROM requests UNION SELECT {_id("u", "user_idx")} FROM raw_user_feat
        ) LEFT JOIN (
            SELECT {_id("u", "user_idx")} AS user_id, gender, nullif(age, 'unknown') AS age, platform,
                nullif(trim(location), '') AS location
            FROM raw_user_feat
        ) USING (user_id)""")
