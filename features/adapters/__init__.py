"""Adapters: real sources rewritten as log folders; the worked examples of bringing your own logs.

To bring your own logs, write the folder that `uniscale.logs` describes and give its path (`data.source=logs`,
`data.input=<folder>`). An adapter does that in four moves, and each here is about a page of SQL:

1. say in a `LogDescription` what your source calls things and what it lacks: the domains with the served one first,
   the scenarios, which event type makes which task positive, which extra columns are profile, context or item
   features, and, in `limits`, what no analysis of this source can show;
2. make the tables users, items, requests, exposures and events, and candidates if you log them, as views or tables of
   a DuckDB connection (or write the Parquet files with any tool of yours);
3. call `features.adapters.layout.write_folder`, which lays them out by day;
4. run the ingest step: it checks every rule of the contract and quarantines, with a reason, what breaks one.

Worth knowing: give each item a version from before its first request on (`valid_from`); a price that changes is a new
version, stamped when it became known, never when it was averaged; leave `request_id` of an event null when the source
does not say which list it came from; write null, not NaN, where a number is missing, and scale `item_numbers` to
about one, because models read them as they are.
"""
