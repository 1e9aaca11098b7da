"""A shop's CSV exports rewritten as a log folder: the template for bringing your own logs.

Run it with `python docs/examples/own_logs.py EXPORTS OUT`, then `uniscale run --data logs --input OUT`.
Replace the names of files and columns by yours, and delete what your logs do not have.
"""

import sys
from pathlib import Path

from features.adapters.layout import open_database, write_folder
from features.sql import text
from uniscale.logs import LogDescription

DESCRIPTION = LogDescription(
    name="shop",
    domains=("search", "feed"),  # the domain you serve first; others only teach
    scenarios=("app", "web"),  # a request may belong to several
    tasks={"click": "click", "conversion": "purchase"},  # task: the event type that makes it positive
    profile=("country",),  # extra columns of users
    context=("device",),  # extra columns of requests
    item_numbers=("rating",),  # extra columns of items, scaled to about one
    has_candidates=False,  # nobody logged what was retrieved and not shown
    has_embeddings=False,
    limits=("The shop does not log what its ranker dropped, so there are no unexposed samples.",),
)


def convert(exports: Path, out: Path) -> dict[str, int]:
    """Read the shop's exports and write the log folder; returns the rows of each table."""
    connection = open_database(out)
    for name in ("customers", "products", "searches", "shown", "actions"):
        connection.execute(f"CREATE VIEW {name} AS FROM read_csv({text(Path(exports) / f'{name}.csv')}, header = true)")
    connection.execute("""
        CREATE TABLE users AS
        SELECT customer AS user_id, joined AT TIME ZONE 'UTC' AS registered_at, country FROM customers;

        -- One version an item and change: valid_from is when the price became known, before its first request.
        CREATE TABLE items AS
        SELECT product AS item_id, since AT TIME ZONE 'UTC' AS valid_from, title,
            string_split(category, '/') AS category, brand, CAST(price AS DOUBLE) AS price,
            CAST(NULL AS VARCHAR) AS seller, CAST(NULL AS FLOAT[]) AS embedding, stars / 5.0 AS rating
        FROM products;

        CREATE TABLE requests AS
        SELECT search AS request_id, surface AS domain, [platform] AS scenario, customer AS user_id,
            time AT TIME ZONE 'UTC' AS ts, words AS query, device
        FROM searches;

        CREATE TABLE exposures AS
        SELECT search AS request_id, product AS item_id, CAST(place AS INTEGER) AS position,
            time AT TIME ZONE 'UTC' AS ts
        FROM shown JOIN searches USING (search);

        -- The list an event came from may be unknown: leave request_id null and attribution finds it.
        CREATE TABLE events AS
        SELECT action AS event_id, customer AS user_id, product AS item_id, time AT TIME ZONE 'UTC' AS ts,
            surface AS domain, kind AS type, search AS request_id, CAST(amount AS DOUBLE) AS amount
        FROM actions;
    """)
    return write_folder(connection, DESCRIPTION, Path(out))


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))
