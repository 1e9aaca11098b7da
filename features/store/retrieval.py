"""Point-in-time retrieval through Feast: what was known of users, queries and items at the instants asked for.

Each function takes a table with a `row_id` (int64, distinct), a key and a UTC timestamp `ts`, and returns one row for
every row given, ordered by `row_id`. Columns are raw: id features are strings not yet hashed (null where unknown);
statistics of an entity without a row are filled by `features.catalogue.missing_value`, so they are never null.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from features.catalogue import missing_value, raw_column
from features.on_demand import user_moments
from features.store.repository import open_offline
from uniscale.errors import DataError
from uniscale.logs import TIMESTAMP
from uniscale.samples import Feature, SampleSpec

ROWS_A_READ = 100_000  # rows joined at a time, so that memory stays bounded


def request_features(features: Path, rows: pa.Table) -> pa.Table:
    """User and behaviour columns of requests.

    Args:
        features: FEATURES folder.
        rows: row_id int64, user_id string, ts timestamp[us, UTC].

    Returns:
        row_id; `user_<profile>` strings; the user's statistics, float32 (`user_clicks_7d`, …, `user_mean_price_30d`);
        the on-demand features of `features.on_demand`, float32;
        behaviour lists of equal length, oldest first, empty without history: behaviour_item_id,
        behaviour_category_1 … 3, behaviour_brand, behaviour_type (list<string>) and behaviour_ts (list<int64>, unix
        seconds). Without returning users only row_id and profile columns.

    Raises:
        DataError: a column is missing.
    """
    known = _retrieve(features, "ranking_requests", "user_id", rows)
    if "user_moments" in SampleSpec.load(features).views:
        # By Feast itself they would cost a second join, and as many Python objects as the histories have elements.
        asked = pc.cast(rows.sort_by("row_id")["ts"], pa.int64()).to_numpy() / 1e6
        histories = known["behaviour_ts"].combine_chunks().to_numpy(zero_copy_only=False)
        for name, values in user_moments(histories, asked).items():
            known = known.append_column(name, pa.array(values))
    return known


def query_day_features(features: Path, rows: pa.Table) -> pa.Table:
    """Query statistics, float32 (`query_searches_1d`, `query_clicks_1d`, …).

    Args:
        features: FEATURES folder.
        rows: row_id int64, query string (a null query counts nothing), ts timestamp[us, UTC]; a day's start suffices,
            since the values change once a day.

    Returns:
        row_id and the statistics.

    Raises:
        DataError: a column is missing.
    """
    return _retrieve(features, "ranking_queries", "query", rows)


def item_day_features(features: Path, rows: pa.Table) -> pa.Table:
    """Item columns as of a day's start.

    Args:
        features: FEATURES folder.
        rows: row_id int64, item_id string, ts timestamp[us, UTC], a day's start.

    Returns:
        row_id; item_category_1 … 3 (the path down to that level, joined by " > "), item_brand, item_seller and the
        description's item_categories as `item_<name>` (string); item_price and its item_numbers as `item_<name>`
        (float32, null where unknown); the statistics, float32 (`item_exposures_1d`, …, `item_ctr_30d`).

    Raises:
        DataError: a column is missing.
    """
    return _retrieve(features, "ranking_items", "item_id", rows)


def _retrieve(features: Path, service: str, key: str, rows: pa.Table) -> pa.Table:
    missing = {"row_id", key, "ts"} - set(rows.column_names)
    if missing:
        raise DataError(f"{service} needs columns row_id, {key} and ts; {sorted(missing)} missing")
    if not len(rows):  # Feast takes no empty question: ask about nobody, for the columns
        nobody = {"row_id": pa.array([0], pa.int64()), key: [""], "ts": pa.array([0], TIMESTAMP)}
        return _retrieve(features, service, key, pa.table(nobody)).slice(0, 0)
    questions = rows.select(["row_id", key, "ts"]).rename_columns(["row_id", key, "event_timestamp"])
    questions, spec = questions.to_pandas(), SampleSpec.load(features)
    parts = []
    with open_offline(features) as store:
        if service not in {offered.name for offered in store.list_feature_services()}:
            return rows.select(["row_id"]).sort_by("row_id")
        for start in range(0, len(rows), ROWS_A_READ):
            part = questions.iloc[start : start + ROWS_A_READ].copy()
            joined = store.get_historical_features(part, store.get_feature_service(service)).to_arrow()
            parts.append(_filled(joined.drop_columns([key, "event_timestamp"]), spec))
    return pa.concat_tables(parts).combine_chunks().sort_by("row_id")


def _filled(table: pa.Table, spec: SampleSpec) -> pa.Table:
    """Missing statistics become their default, missing histories empty lists; types whatever the offline store made."""
    defaults = {feature.name: missing_value(feature) for feature in spec.features if feature.kind != "id"}
    types = {raw_column(feature): _type(feature) for feature in spec.features} | {"behaviour_ts": pa.list_(pa.int64())}
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        column = column.cast(types[name]) if name in types else column
        if defaults.get(name) is not None:
            column = pc.fill_null(column, pa.scalar(defaults[name], pa.float32()))
        if pa.types.is_list(column.type):
            column = column.fill_null([]) if column.null_count else column
        columns[name] = column
    return pa.table(columns)


def _type(feature: Feature) -> pa.DataType:
    scalar = pa.string() if feature.kind == "id" else pa.float32()
    return pa.list_(scalar) if feature.level == "behaviour" else scalar
