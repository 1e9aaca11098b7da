"""The rules of valid logs as SQL: from a table's contract to one `reason` a row, null for a valid row.

The order of the rules is: type, null, finite, range, length, declared names, references, times, duplicates; a row
carries the first it breaks.
"""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from features.sql import quoted, text
from uniscale.logs import FLOATS, STRINGS, TIMESTAMP, Column, LogDescription, Table
from uniscale.sections import IngestConfig

EARLIEST, LATEST = "1990-01-01", "2100-01-01"
SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    STRINGS: "VARCHAR[]",
    FLOATS: "FLOAT[]",
}
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT")
Rule = tuple[str, str]  # condition that is true of a bad row, reason


def declared_columns(table: Table, description: LogDescription) -> tuple[Column, ...]:
    """The contract's columns of a table and those the description adds: categories as strings, numbers as doubles."""
    extra: dict[str, tuple[Column, ...]] = {
        "users": tuple(Column(name, pa.string(), nullable=True) for name in description.profile),
        "requests": tuple(Column(name, pa.string(), nullable=True) for name in description.context),
        "items": (
            *(Column(name, pa.string(), nullable=True) for name in description.item_categories),
            *(Column(name, pa.float64(), nullable=True) for name in description.item_numbers),
        ),
    }
    return (*table.columns, *extra.get(table.name, ()))


def accepts(wanted: pa.DataType, found: str) -> bool:
    """Whether a DuckDB type may be cast to a contract type without guessing: 3 is a name, "3" is no number."""
    if pa.types.is_list(wanted):
        return found.endswith("]") and accepts(wanted.value_type, found[: found.rindex("[")])
    if wanted == TIMESTAMP:
        return found.startswith(("TIMESTAMP", "DATE"))
    if wanted == pa.string():
        return found in ("VARCHAR", "BOOLEAN", "UUID", *INTEGERS) or found.startswith("ENUM")
    return found in ("FLOAT", "DOUBLE", *INTEGERS) or found.startswith("DECIMAL")


def row_rules(table: Table, description: LogDescription, config: IngestConfig) -> list[Rule]:
    """Rules that look at one row of `table` alone."""
    rules: list[Rule] = [("failed IS NOT NULL", "")]
    for column in declared_columns(table, description):
        rules += _column_rules(table, column, config)
    declared: dict[str, list[Rule]] = {
        "items": [(f"len(embedding) <> {_usual_width('items', 'embedding')}", "embedding has an unusual width")],
        "requests": [
            (_undeclared("domain", description.domains), "domain is not in description.json"),
            (
                f"len(list_filter(scenario, lambda s: {_undeclared('s', description.scenarios)})) > 0",
                "scenario is not in description.json",
            ),
            ("trim(query) = ''", "query is blank"),
        ],
        "candidates": [
            ("len(item_ids) <> len(scores)", "scores and item_ids differ in length"),
            ("len(list_distinct(item_ids)) < len(item_ids)", "item_ids repeats an item"),
        ],
        "events": [(_undeclared("domain", description.domains), "domain is not in description.json")],
    }
    return rules + declared.get(table.name, [])


def _column_rules(table: Table, column: Column, config: IngestConfig) -> list[Rule]:
    name = quoted(column.name)
    rules: list[Rule] = []
    if not column.nullable:
        rules.append((f"{name} IS NULL", f"{column.name} is null"))
    if column.type in (pa.float64(), pa.int32()):
        rules.append((f"NOT isfinite(CAST({name} AS DOUBLE))", f"{column.name} is not finite"))
    if column.type == FLOATS:
        finite = f"len(list_filter({name}, lambda x: isfinite(x)))"
        rules.append((f"{finite} < len({name})", f"{column.name} holds a missing or infinite number"))
    if column.type == STRINGS:
        rules.append(
            (f"len(list_filter({name}, lambda x: x <> '')) < len({name})", f"{column.name} holds an empty name")
        )
    if column.type == TIMESTAMP:
        span = f"{name} NOT BETWEEN TIMESTAMPTZ '{EARLIEST}' AND TIMESTAMPTZ '{LATEST}'"
        rules.append((span, f"{column.name} is before {EARLIEST[:4]} or after {LATEST[:4]}"))
    if column.minimum is not None:
        rules.append((f"{name} < {column.minimum}", f"{column.name} is below {column.minimum:g}"))
    if column.maximum is not None:
        rules.append((f"{name} > {column.maximum}", f"{column.name} is above {column.maximum:g}"))
    if column.name in table.key or column.refers_to:
        rules += [(f"{name} = ''", f"{column.name} is empty")] if column.type == pa.string() else []
    longest = column.max_length
    if (table.name, column.name) == ("requests", "query"):
        longest = min(config.max_query_length, longest or config.max_query_length)
    if longest is not None:
        rules.append((f"length({name}) > {longest}", f"{column.name} is longer than {longest} characters"))
    return rules


def judge(
    connection: duckdb.DuckDBPyConnection, table: Table, description: LogDescription, config: IngestConfig
) -> None:
    """Create `judged_<table>` from `raw_<table>`: its columns, `day`, and `reason`.

    Needs the judged tables that this one refers to, and `raw_<table>` with a `failed` column (see `features.ingest`).
    """
    rules: list[Rule] = []
    joins = ""
    for column in table.columns:
        if column.refers_to:
            other, key = column.refers_to.split(".")
            alias = f"to_{other}"
            joins += f" LEFT JOIN known_{other} {alias} ON raw.{quoted(column.name)} = {alias}.{quoted(key)}"
            absent = f"raw.{quoted(column.name)} IS NOT NULL AND {alias}.valid IS NULL"
            rules.append((absent, f"refers to unknown {column.refers_to}"))
            rules.append((f"NOT {alias}.valid", f"refers to a quarantined row of {other}"))
    rules += LAWS.get(table.name, [])
    own = {"requests": "raw.ts", "events": "raw.ts", "candidates": "to_requests.ts", "exposures": "to_requests.ts"}
    day = f"CAST({own[table.name]} AS DATE)" if table.by_day else "NULL"
    columns = ", ".join(f"raw.{quoted(column.name)}" for column in declared_columns(table, description))
    connection.execute(f"""
        CREATE TABLE judged_{table.name} AS
        WITH raw AS (
            SELECT *, rowid AS row, {_first(row_rules(table, description, config))} AS own_reason FROM raw_{table.name}
        )
        SELECT {columns}, raw.original, {day} AS day, coalesce(raw.own_reason, {_first(rules)}) AS reason
        FROM raw{joins}""")
    connection.execute(f"DROP TABLE raw_{table.name}")
    _reject_duplicates(connection, table, description)
    known = KNOWN.get(table.name)
    if known:
        connection.execute(known)


# What later tables ask of earlier ones: is the key there, is it valid, and the times and owners to compare with.
KNOWN = {
    "users": """
        CREATE TABLE known_users AS
        SELECT user_id, bool_or(reason IS NULL) AS valid FROM judged_users GROUP BY user_id""",
    "items": """
        CREATE TABLE known_items AS
        SELECT item_id, bool_or(reason IS NULL) AS valid, min(valid_from) FILTER (reason IS NULL) AS valid_from
        FROM judged_items GROUP BY item_id""",
    "requests": """
        CREATE TABLE known_requests AS
        SELECT request_id, bool_or(reason IS NULL) AS valid, arg_min(ts, reason IS NOT NULL) AS ts,
            arg_min(user_id, reason IS NOT NULL) AS user_id
        FROM judged_requests GROUP BY request_id""",
}
# Rules between tables, once the references hold.
LAWS: dict[str, list[Rule]] = {
    "exposures": [
        ("raw.ts < to_requests.ts", "shown before its request"),
        ("raw.ts < to_items.valid_from", "shown before the item's first version"),
    ],
    "events": [
        ("raw.ts < to_requests.ts", "happened before its request"),
        ("raw.user_id <> to_requests.user_id", "user differs from its request's"),
        ("raw.ts < to_items.valid_from", "happened before the item's first version"),
    ],
}
# The items of valid candidate lists that no request may use, with the reason.
REFUSED = """
    CREATE TABLE judged_listed_items AS
    SELECT request_id, item_id, listed.day, CASE
        WHEN i.valid IS NULL THEN 'refers to unknown items.item_id'
        WHEN NOT i.valid THEN 'refers to a quarantined row of items'
        WHEN i.valid_from > r.ts THEN 'listed before the item''s first version' END AS reason
    FROM (SELECT request_id, day, unnest(item_ids) AS item_id FROM judged_candidates WHERE reason IS NULL) listed
    LEFT JOIN known_items i USING (item_id) LEFT JOIN known_requests r USING (request_id)
    WHERE reason IS NOT NULL"""
OF_LISTS = """
    FROM (SELECT request_id, list(item_id) AS refused FROM judged_listed_items GROUP BY request_id) bad
    WHERE judged_candidates.request_id = bad.request_id AND reason IS NULL"""
EMPTIED = f"""
    UPDATE judged_candidates SET reason = 'lists no valid item' {OF_LISTS} AND len(refused) = len(item_ids)"""
SHORTENED = f"""
    UPDATE judged_candidates SET
        item_ids = list_filter(item_ids, lambda item: NOT list_contains(refused, item)),
        scores = list_filter(scores, lambda score, place: NOT list_contains(refused, item_ids[place]))
    {OF_LISTS}"""


def leave_out(connection: duckdb.DuckDBPyConnection) -> int:
    """Create `judged_listed_items`, items that valid candidate lists may not name, and take them out of their lists.

    A bad item is in many lists, so a list goes on without it; one that names no other is refused.

    Returns:
        Listed items that stay.
    """
    for statement in (REFUSED, EMPTIED, SHORTENED):  # a refused list goes to quarantine as it was
        connection.execute(statement)
    stay = "SELECT coalesce(sum(len(item_ids)), 0) FROM judged_candidates WHERE reason IS NULL"
    return int(connection.execute(stay).fetchall()[0][0])


def _first(rules: Sequence[Rule]) -> str:
    cases = " ".join(f"WHEN {condition} THEN {text(reason) if reason else 'failed'}" for condition, reason in rules)
    return f"CASE {cases} END" if rules else "NULL"


def _reject_duplicates(connection: duckdb.DuckDBPyConnection, table: Table, description: LogDescription) -> None:
    """Of valid rows with one key the first stays: the earliest, ties by all columns in order."""
    key = ", ".join(quoted(name) for name in table.key)
    columns = declared_columns(table, description)
    ordered = sorted(columns, key=lambda column: column.type != TIMESTAMP)
    order = ", ".join(quoted(column.name) for column in ordered)
    connection.execute(f"""
        UPDATE judged_{table.name} SET reason = {text(f"duplicate of {', '.join(table.key)}")} WHERE rowid IN (
            SELECT row FROM (
                SELECT rowid AS row, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS n
                FROM judged_{table.name}
                WHERE reason IS NULL AND ({key}) IN (
                    SELECT ({key}) FROM judged_{table.name} WHERE reason IS NULL GROUP BY {key} HAVING count(*) > 1
                )
            ) WHERE n > 1
        )""")


def _undeclared(name: str, declared: Sequence[str]) -> str:
    return f"{name} NOT IN ({', '.join(text(each) for each in declared)})"


def _usual_width(table: str, column: str) -> str:
    return f"(SELECT mode(len({column})) FROM raw_{table} WHERE {column} IS NOT NULL)"
