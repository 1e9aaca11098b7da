"""KuaiSAR (Kuaishou, CIKM 2023) as a log folder: video searches as the served domain, the recommended feed beside it.

Source: `src_inter.csv`, `rec_inter.csv`, `user_features.csv` and `item_features.csv` of the release. A request is a
search session, its query the numbers that stand for its words, or the videos that the feed sent a user at one instant.
Written from the documented layout of the release; no row of it has been read yet.
"""

from pathlib import Path

from features.adapters.files import Source
from features.adapters.layout import day_parts, open_database, write_folder
from uniscale.logs import LogDescription
from uniscale.sections import DataConfig

FEED_EVENTS = ("click", "like", "follow", "forward")
DESCRIPTION = LogDescription(
    name="kuaisar",
    domains=("search", "feed"),
    scenarios=("weekday", "weekend", "evening"),
    tasks={"click": "click"},
    profile=("group_1", "group_2"),
    context=("search_source",),
    item_categories=("kind", "upload_type"),
    has_candidates=False,
    has_embeddings=False,
    limits=(
        "This adapter was written from the documented layout of the release and has met none of its rows: look at what "
        "ingest quarantines first.",
        "Only what was shown is logged, so there are no unexposed samples; positions in a search are not recorded.",
        "Words are replaced by numbers: a query and a caption match where they share numbers, and no pretrained text "
        "encoder applies.",
        "Clicks have no time of their own; one minute after the list is assumed.",
        "A click in the feed is a judgement of the platform's, made from playing, and feed rows with and without one "
        "were drawn about one to one, so its click rates are not those of the app.",
        "What the feed sent a user at one instant counts as one request; positions in it are not recorded.",
        "Likes, follows and forwards are known of the feed only, so a search has the one task of a click.",
        "Videos have no price: it is 0. A video without an upload date exists from its first appearance on.",
        "Search results of other kinds (live streams, people, goods) have no description beyond their kind.",
        "The users' levels of activity cover a month that may overlap the log and are left out, as are playing times "
        "and the social network.",
        "Nothing was shown at random, so no off-policy estimate is possible.",
    ),
)
LEVELS = ("first", "second", "third")  # of four levels of categories, as many as the contract uses
TABLES = {
    "src_inter": (
        *("user_id", "search_session_id", "search_session_timestamp", "keyword", "search_source", "item_id"),
        *("click_cnt", "item_type"),
    ),
    "rec_inter": ("user_id", "item_id", "timestamp", *FEED_EVENTS),
    "user_features": ("user_id", "onehot_feat1", "onehot_feat2"),
    "item_features": (
        *("item_id", "caption", "author_id", "item_type", "upload_time", "upload_type"),
        *(f"{level}_level_category_name_en" for level in LEVELS),
    ),
}


def write_logs(config: DataConfig, out: Path) -> dict[str, int]:
    """Write the release found in the folder `config.input` as a log folder.

    Returns:
        Rows of each table.

    Raises:
        DataError: a file of the release is not there, cannot be read, or has other columns.
    """
    connection = open_database(out)
    source = Source("KuaiSAR", config.input)
    for table, columns in TABLES.items():
        source.view(connection, table, columns)
    connection.execute(_TABLES)
    return write_folder(connection, DESCRIPTION, out)


def _id(letter: str, value: str) -> str:
    """SQL of a name from a whole number that may be written 7 or 7.0."""
    return f"'{letter}' || CAST(CAST({value} AS DECIMAL(38, 3)) AS HUGEINT)"


def _time(milliseconds: str) -> str:
    return f"epoch_ms(CAST(CAST({milliseconds} AS DOUBLE) AS BIGINT)) AT TIME ZONE 'UTC'"


def _words(numbers: str) -> str:
    """SQL of a text from a printed list: "[20, 34]" becomes "20 34", an empty list null."""
    return f"nullif(left(array_to_string(regexp_extract_all({numbers}, '[0-9]+'), ' '), 256), '')"


def _known(name: str) -> str:
    return f"CASE WHEN lower({name}) NOT IN ('', 'empty', 'unknown') THEN {name} END"


_PATH = ", ".join(_known(f"{level}_level_category_name_en") for level in LEVELS)
_TABLES = f"""
    CREATE TABLE searched AS
    SELECT {_id("s", "search_session_id")} || {_id("-", "user_id")} || {_id("-", "search_session_timestamp")}
            AS request_id,
        {_id("u", "user_id")} AS user_id, {_time("search_session_timestamp")} AS ts, {_words("keyword")} AS query,
        lower(search_source) AS search_source, {_id("v", "item_id")} AS item_id, lower(item_type) AS kind,
        CAST(click_cnt AS DOUBLE) AS n_click
    FROM raw_src_inter;
    CREATE TABLE sent AS
    SELECT {_id("f", "user_id")} || {_id("-", "timestamp")} AS request_id, {_id("u", "user_id")} AS user_id,
        {_time("timestamp")} AS ts, {_id("v", "item_id")} AS item_id,
        {", ".join(f'CAST("{name}" AS DOUBLE) AS n_{name}' for name in FEED_EVENTS)}
    FROM raw_rec_inter;
    CREATE TABLE requests AS
    SELECT request_id, 'search' AS domain, {day_parts("any_value(ts)", 8)} AS scenario, any_value(user_id) AS user_id,
        any_value(ts) AS ts, any_value(query) AS query, any_value(search_source) AS search_source
    FROM searched GROUP BY request_id
    UNION ALL
    SELECT request_id, 'feed', {day_parts("any_value(ts)", 8)}, any_value(user_id), any_value(ts), NULL, NULL
    FROM sent GROUP BY request_id;
    CREATE TABLE exposures AS
    SELECT DISTINCT request_id, item_id, CAST(NULL AS INTEGER) AS position, ts FROM searched
    UNION ALL SELECT DISTINCT request_id, item_id, NULL, ts FROM sent;
    CREATE TABLE events AS
    SELECT type || '-' || request_id || '-' || item_id AS event_id, user_id, item_id,
        ts + INTERVAL 1 MINUTE AS ts, domain, type, request_id, CAST(NULL AS DOUBLE) AS amount
    FROM (
        SELECT DISTINCT request_id, user_id, item_id, ts, 'search' AS domain, 'click' AS type
        FROM searched WHERE n_click > 0
        {
    " ".join(
        f"UNION ALL SELECT DISTINCT request_id, user_id, item_id, ts, 'feed', '{name}' FROM sent WHERE n_{name} > 0"
        for name in FEED_EVENTS
    )
}
    );
    CREATE TABLE described AS
    SELECT {_id("v", "item_id")} AS item_id, {_words("caption")} AS title,
        list_filter([{_PATH}], lambda c: c IS NOT NULL) AS category,
        CASE WHEN CAST(author_id AS DOUBLE) > 0 THEN {_id("a", "author_id")} END AS seller,
        lower(item_type) AS kind, lower(upload_type) AS upload_type,
        CASE WHEN upload_time > '1970-01-02' THEN CAST(upload_time AS TIMESTAMP) - INTERVAL 8 HOUR END
            AT TIME ZONE 'UTC' AS uploaded
    FROM raw_item_features;
    CREATE TABLE items AS
    SELECT item_id, least(uploaded, appeared.ts) AS valid_from, title,
        CASE WHEN len(category) > 0 THEN category ELSE ['unknown'] END AS category, CAST(NULL AS VARCHAR) AS brand,
        0.0::DOUBLE AS price, seller, CAST(NULL AS FLOAT[]) AS embedding, coalesce(described.kind, found.kind) AS kind,
        upload_type
    FROM (SELECT item_id, min(ts) AS ts FROM exposures GROUP BY item_id) appeared
    LEFT JOIN described USING (item_id)
    LEFT JOIN (SELECT item_id, min(kind) AS kind FROM searched GROUP BY item_id) found USING (item_id);
    CREATE TABLE users AS
    SELECT user_id, CAST(NULL AS TIMESTAMPTZ) AS registered_at, group_1, group_2
    FROM (
        SELECT user_id FROM requests UNION SELECT {_id("u", "user_id")} FROM raw_user_features
    ) LEFT JOIN (
        SELECT {_id("u", "user_id")} AS user_id, onehot_feat1 AS group_1, onehot_feat2 AS group_2
        FROM raw_user_features
    ) USING (user_id);
"""
