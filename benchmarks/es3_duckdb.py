"""ES3 once more, in DuckDB SQL on one machine: what the Spark job is compared with, row by row and second by second.

The four stages of UniScale 3.3 from the same rules, written independently of `features.es3` (ASOF joins where that
walks windows). Shared with it: the hash, the retrieval from Feast, the text encoder and the ANN index.
"""

import shutil
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import xxhash

from features.catalogue import context_names, missing_value
from features.es3 import retrieve
from features.es3.attribution import Rules
from features.es3.corpus import nearest
from features.es3.days import read_day
from features.es3.intra import DRAWS
from features.splits import Splits
from features.sql import connect, text
from uniscale.config import Config
from uniscale.hashing import SEED
from uniscale.logs import LogDescription
from uniscale.samples import SampleSpec, row_schema

MEMORY_LIMIT = "8GB"


def build(config: Config, logs: Path, features: Path, out: Path) -> dict[str, float]:
    """Write `rows/day=…/domain=…/*.parquet` of a clean log folder; returns the seconds of each stage."""
    description, spec = LogDescription.load(logs), SampleSpec.load(features)
    rules = Rules.of(config.samples, description.target, description.tasks)
    splits = Splits.load(features, config.samples)
    out.mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(prefix=".scratch-duckdb-", dir=out.parent))
    seconds, started = {}, time.perf_counter()
    connection = connect(scratch, MEMORY_LIMIT)
    try:
        for name, stage in (
            ("read", lambda: _read(connection, logs, features, splits, rules, description)),
            ("intra-domain samples", lambda: _intra(connection, config.samples.unexposed_per_exposed, config.seed)),
            ("label attribution", lambda: _attribute(connection, rules)),
            ("searchification", lambda: _searchify(connection, config, rules, features, scratch)),
            ("features and list-wise rows", lambda: _write(connection, spec, features, scratch, out)),
        ):
            stage()
            seconds[name], started = time.perf_counter() - started, time.perf_counter()
    finally:
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return seconds


def _read(
    connection: duckdb.DuckDBPyConnection,
    logs: Path,
    features: Path,
    splits: Splits,
    rules: Rules,
    description: LogDescription,
) -> None:
    for name in ("requests", "candidates", "exposures", "events"):
        files = text(logs / name / "*" / "*.parquet")
        columns = "* EXCLUDE (day), CAST(day AS DATE) AS day"
        connection.execute(
            f"CREATE VIEW all_{name} AS SELECT {columns} FROM read_parquet({files}, hive_partitioning = true)"
        )
    tail, last = f"INTERVAL {splits.tail_days} DAY", f"DATE '{splits.test[1]}'"
    spans = " OR ".join(
        f"day BETWEEN '{first}' AND '{end}'" for first, end in (splits.train, splits.valid, splits.test)
    )
    context = "".join(f', CAST("{name}" AS VARCHAR) AS "context_{name}"' for name in context_names(description))
    tasks = " ".join(f"WHEN '{event}' THEN '{task}'" for task, event in rules.tasks.items())
    windows = " ".join(f"WHEN '{task}' THEN {rules.micros(task)}" for task in rules.tasks)
    kinds = ", ".join(f"'{event}'" for event in rules.tasks.values())
    connection.execute(f"""
        CREATE MACRO labelling(day) AS day BETWEEN DATE '{splits.train[0]}' - {tail} AND {last} + {tail};
        CREATE MACRO kept(day) AS {spans};
        CREATE VIEW requests AS SELECT request_id, domain, scenario, user_id, ts, query, day{context} FROM all_requests
            WHERE day <= {last} + {tail};
        CREATE TABLE every_event AS SELECT event_id, CASE type {tasks} END AS task, user_id, item_id, domain,
            epoch_us(ts) AS acted, domain = '{rules.target}' AS own, request_id AS event_request, day
            FROM all_events WHERE type IN ({kinds});
        CREATE TABLE events AS FROM every_event WHERE labelling(day);
        CREATE TABLE catalogue AS FROM read_parquet({text(features / "items.parquet")});
        SET VARIABLE target = '{rules.target}'; SET VARIABLE "primary" = '{rules.primary}';
        CREATE MACRO "window"(task) AS CASE task {windows} END""")


def _intra(connection: duckdb.DuckDBPyConnection, per_exposed: int, seed: int) -> None:
    """`samples` (flat) and `lists` (a row a request) of the search requests of the days that may earn a label."""

    def draw(requests: pa.Array, sizes: pa.Array, wanted: pa.Array) -> pa.Array:
        """Positions drawn from each list: hashes of (request, draw, seed), chained as Spark's xxhash64 chains them."""
        digest = xxhash.xxh64_intdigest
        draws = [
            [_signed(digest(_int(seed), digest(_int(i), key))) % size for i in range(1, many * DRAWS + 1)]
            for key, size, many in zip(
                (digest(request.encode(), SEED) for request in requests.to_pylist()),
                sizes.to_pylist(), wanted.to_pylist(), strict=True,
            )
        ]  # fmt: skip
        return pa.array(draws, pa.list_(pa.int64()))

    def rank(requests: pa.Array, items: pa.Array) -> pa.Array:
        digest = xxhash.xxh64_intdigest
        pairs = zip(requests.to_pylist(), items.to_pylist(), strict=True)
        return pa.array(
            [_signed(digest(_int(seed), digest(item.encode(), digest(r.encode(), SEED)))) for r, item in pairs]
        )

    connection.create_function("draw", draw, ["VARCHAR", "BIGINT", "BIGINT"], "BIGINT[]", type="arrow")  # type: ignore[call-overload]
    connection.create_function("rank_key", rank, ["VARCHAR", "VARCHAR"], "BIGINT", type="arrow")  # type: ignore[call-overload]
    connection.execute(f"""
        CREATE TABLE shown AS SELECT r.request_id, r.user_id, epoch_us(r.ts) AS asked, e.item_id,
            CAST(coalesce(e.position, 0) AS SMALLINT) AS position
        FROM all_exposures e JOIN requests r USING (request_id)
        WHERE r.domain = getvariable('target') AND labelling(r.day) AND labelling(e.day);
        CREATE TABLE pools AS SELECT s.*, c.item_ids AS pool,
            list_transform(draw(request_id, len(c.item_ids), s.wanted), lambda p: c.item_ids[p + 1]) AS drawn
        FROM (SELECT request_id, any_value(user_id) AS user_id, any_value(asked) AS asked, list(item_id) AS exposed,
                count(*) * {per_exposed} AS wanted FROM shown GROUP BY request_id) s
        JOIN (SELECT request_id, CASE WHEN list_unique(item_ids) = len(item_ids) THEN item_ids ELSE
                list_filter(item_ids, lambda x, i: list_position(item_ids, x) = i) END AS item_ids
              FROM all_candidates WHERE labelling(day)) c USING (request_id) WHERE len(c.item_ids) > 0;
        CREATE TABLE rejected AS SELECT request_id, user_id, asked, wanted, item_id, min(n) AS n
        FROM (SELECT request_id, user_id, asked, wanted, exposed, unnest(drawn) AS item_id,
                generate_subscripts(drawn, 1) AS n FROM pools)
        WHERE NOT list_contains(exposed, item_id) GROUP BY ALL;
        CREATE TABLE unexposed AS WITH enough AS (
            SELECT request_id FROM rejected GROUP BY request_id, wanted HAVING count(*) >= wanted
        ), by_hash AS (
            SELECT request_id, user_id, asked, wanted, item_id, rank_key(request_id, item_id) AS n
            FROM (SELECT *, unnest(pool) AS item_id FROM pools WHERE request_id NOT IN (FROM enough))
            WHERE NOT list_contains(exposed, item_id)
        ), found AS (FROM rejected SEMI JOIN enough USING (request_id) UNION ALL BY NAME FROM by_hash)
        SELECT request_id, user_id, asked, item_id,
            row_number() OVER (PARTITION BY request_id ORDER BY n, item_id) AS place FROM found
        QUALIFY place <= wanted;
        CREATE TABLE samples AS
        SELECT request_id, user_id, asked, item_id, 0 AS sampling, position,
            row_number() OVER (PARTITION BY request_id ORDER BY position, item_id) AS n FROM shown
        UNION ALL SELECT request_id, user_id, asked, item_id, 1, 0, 1000000 + place FROM unexposed""")


def _attribute(connection: duckdb.DuckDBPyConnection, rules: Rules) -> None:
    """`landings` of search samples: event_id, task, acted, request_id, item_id, source."""
    levels = {
        "exposed": "SELECT user_id, item_id, asked AS acted, max({'asked': asked, 'request_id': request_id}) AS best "
        "FROM samples WHERE sampling = 0 GROUP BY ALL",
        "unexposed": "SELECT user_id, item_id, asked AS acted, max({'asked': asked, 'request_id': request_id}) AS best "
        "FROM samples WHERE sampling = 1 GROUP BY ALL",
        "clicked": "SELECT DISTINCT user_id, item_id, acted, max({'asked': asked, 'request_id': request_id}) OVER "
        "(PARTITION BY user_id, item_id ORDER BY acted) AS best FROM bound",
        "last_click": "SELECT user_id, item_id, acted, max({'asked': asked, 'request_id': request_id}) AS best "
        "FROM bound GROUP BY ALL",
    }
    joins = " ".join(
        f"ASOF LEFT JOIN ({query}) {name} ON e.user_id = {name}.user_id AND e.item_id = {name}.item_id "
        f"AND e.acted >= {name}.acted"
        for name, query in levels.items()
    )
    within = {name: f'{name}.best.asked >= e.acted - "window"(e.task)' for name in levels}
    take = {
        name: f"WHEN {test} THEN {{'request_id': {name}.best.request_id, 'source':" for name, test in within.items()
    }
    anywhere = f"{take['exposed']} 3}} {take['unexposed']} 4}}"
    primary = f"'{rules.primary}'"
    clicks = ", ".join(f"'{task}'" for task in rules.clicks) or "NULL"
    connection.execute(f"""
        CREATE TABLE bound AS SELECT e.event_id, e.task, e.acted, s.request_id, s.item_id, s.user_id, s.asked
        FROM events e JOIN samples s ON s.request_id = e.event_request AND s.item_id = e.item_id
            AND s.user_id = e.user_id AND s.sampling = 0
        WHERE e.own AND e.task = {primary} AND e.acted - s.asked BETWEEN 0 AND "window"(e.task);
        CREATE TABLE landings AS
        SELECT event_id, task, acted, request_id, item_id, 1 AS source FROM bound
        UNION ALL SELECT event_id, task, acted, landing.request_id, item_id, landing.source FROM (
            SELECT e.event_id, e.task, e.acted, e.item_id, CASE
                WHEN e.own THEN CASE {take["last_click"]} 1}} END
                WHEN e.task IN ({clicks}) THEN CASE {anywhere} END
                ELSE CASE {take["clicked"]} 2}} {anywhere} END END AS landing
            FROM events e {joins} WHERE NOT (e.own AND e.task = {primary}))
        WHERE landing IS NOT NULL""")


def _searchify(
    connection: duckdb.DuckDBPyConnection, config: Config, rules: Rules, features: Path, scratch: Path
) -> None:
    """`pseudo` (a row a pseudo-request), their samples and landings."""
    primary, settings = f"'{rules.primary}'", config.samples
    context = [name for name in connection.table("requests").columns if name.startswith("context_")]
    surroundings = ", ".join(f"around.{name} AS {name}" for name in ("scenario", *context))
    connection.execute(f"""
        CREATE TABLE made AS SELECT *, epoch_us(ts) AS made_at FROM requests WHERE labelling(day);
        CREATE TABLE clicks AS SELECT 'pseudo:' || event_id AS request_id, * EXCLUDE around, {surroundings} FROM (
            SELECT e.*, r.request_id AS origin, coalesce(r.made_at, e.acted) AS asked,
                CASE WHEN r.request_id IS NOT NULL THEN r
                    WHEN e.acted - s.made_at <= "window"({primary}) THEN s END AS around
            FROM events e LEFT JOIN made r ON r.request_id = e.event_request AND r.user_id = e.user_id
            ASOF LEFT JOIN (FROM made QUALIFY row_number() OVER
                (PARTITION BY user_id, domain, made_at ORDER BY request_id DESC) = 1) s
                ON s.user_id = e.user_id AND s.domain = e.domain AND e.acted >= s.made_at
            WHERE NOT e.own AND e.task = {primary} AND e.event_id NOT IN (SELECT event_id FROM landings))
        WHERE acted - asked BETWEEN 0 AND "window"({primary}) AND around.request_id IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY coalesce(origin, event_id), item_id ORDER BY acted, event_id) = 1;
        CREATE TABLE led AS SELECT e.user_id, e.item_id, e.acted, r.query FROM every_event e
        JOIN requests r ON r.request_id = e.event_request
        WHERE e.own AND e.task = {primary} AND r.query IS NOT NULL
            AND e.day <= (SELECT max(day) FROM requests);
        CREATE TABLE past AS SELECT p.*, o.best AS own_query, c.best.query AS common FROM clicks p
        ASOF LEFT JOIN (SELECT user_id, item_id, acted, max(query) AS best FROM led GROUP BY ALL) o
            ON p.user_id = o.user_id AND p.item_id = o.item_id AND p.asked > o.acted
        ASOF LEFT JOIN (
            SELECT DISTINCT item_id, acted, max(most) OVER (PARTITION BY item_id ORDER BY acted) AS best FROM (
                SELECT item_id, acted, {{'n': count(*) OVER (PARTITION BY item_id, query ORDER BY acted),
                    'acted': acted, 'query': query}} AS most FROM led)) c
            ON p.item_id = c.item_id AND p.asked > c.acted""")
    corpus, corpus_keys = scratch / "corpus", scratch / "corpus_keys" / "0.parquet"
    corpus_keys.parent.mkdir()
    connection.execute(f"""COPY (SELECT query, min(epoch_us(ts)) AS first_asked FROM requests
        WHERE domain = getvariable('target') AND query IS NOT NULL GROUP BY query
        ORDER BY first_asked, query) TO {text(corpus_keys)}""")
    retrieve.write_corpus(corpus_keys.parent, features, corpus)
    titles = connection.sql("""SELECT request_id, asked, text FROM past JOIN catalogue USING (item_id)
        WHERE own_query IS NULL AND common IS NULL AND list_dot_product(text, text) > 0""").to_arrow_table()
    connection.register("near", _nearest(titles, corpus / "ann"))
    connection.execute(f"""
        CREATE TABLE pseudo AS SELECT p.*, coalesce(own_query, common, typed.query) AS query, CASE
            WHEN own_query IS NOT NULL THEN 1 WHEN common IS NOT NULL THEN 2 ELSE 3 END AS query_rule
        FROM past p LEFT JOIN near USING (request_id)
        LEFT JOIN read_parquet({text(corpus / "rows" / "*.parquet")}) typed USING (query_row)
        WHERE coalesce(own_query, common, typed.query) IS NOT NULL;
        CREATE TABLE beside AS SELECT p.request_id, p.item_id AS own, e.item_id, e.position,
            list_cosine_similarity(v.content::DOUBLE[], w.content::DOUBLE[]) AS similarity, k.item_id IS NOT NULL AS hit
        FROM pseudo p JOIN all_exposures e ON e.request_id = p.origin AND labelling(e.day)
        LEFT JOIN catalogue v ON v.item_id = p.item_id LEFT JOIN catalogue w ON w.item_id = e.item_id
        LEFT JOIN (SELECT DISTINCT event_request, item_id FROM events) k
            ON k.event_request = p.origin AND k.item_id = e.item_id;
        INSERT INTO samples BY NAME
        SELECT p.request_id, p.user_id, p.asked, p.item_id, 2 AS sampling, coalesce(b.position, 0) AS position, 0 AS n
        FROM pseudo p LEFT JOIN (SELECT request_id, min(position) AS position FROM beside WHERE item_id = own
            GROUP BY ALL) b USING (request_id);
        INSERT INTO samples BY NAME
        SELECT request_id, user_id, asked, b.item_id, 3 AS sampling, coalesce(position, 0) AS position,
            row_number() OVER (PARTITION BY request_id ORDER BY similarity DESC, b.item_id) AS n
        FROM beside b JOIN pseudo USING (request_id)
        WHERE NOT hit AND b.item_id <> b.own AND similarity >= {settings.similarity_floor} AND NOT isnan(similarity)
        QUALIFY n <= {settings.negatives};
        INSERT INTO landings SELECT e.event_id, e.task, e.acted, c.best.request_id, e.item_id, 5 FROM events e
        ASOF JOIN (SELECT DISTINCT user_id, item_id, acted, max({{'asked': asked, 'request_id': request_id}}) OVER
                (PARTITION BY user_id, item_id ORDER BY acted) AS best FROM pseudo) c
            ON e.user_id = c.user_id AND e.item_id = c.item_id AND e.acted >= c.acted
        WHERE e.task <> {primary} AND e.acted - c.best.asked <= "window"(e.task)
            AND (e.event_id, e.task) NOT IN (SELECT (event_id, task) FROM landings);
        INSERT INTO landings SELECT event_id, {primary}, acted, request_id, item_id, 5 FROM pseudo""")


def _write(connection: duckdb.DuckDBPyConnection, spec: SampleSpec, features: Path, scratch: Path, out: Path) -> None:
    def scenario(column: str) -> str:
        return f"array_to_string(list_sort({column}), '|')"

    sources = ", ".join(f"coalesce(l.{task}_source, 0)::TINYINT AS {task}_source" for task in spec.tasks)
    fields = ["item_id", "sampling", "position", *(f"{task}_source" for task in spec.tasks)]
    struct = ", ".join(f"'{name}': {name}" for name in fields)
    labels = ", ".join(f"min(source) FILTER (task = '{task}') AS {task}_source" for task in spec.tasks)
    domains, scenarios = ([*names] for names in (spec.domains, spec.scenarios))
    context = [f.name for f in spec.select("request") if f.block == "context"]
    logged = [name for name in context if name not in ("context_hour", "context_weekday", "context_scenario")]
    columns = ", ".join(["request_id", "user_id", "domain", "scenario", "ts", "query", "query_rule", "day", *logged])
    requests, keys = scratch / "requests" / "0.parquet", scratch / "keys"
    for folder in (requests.parent, keys / "item", keys / "query"):
        folder.mkdir(parents=True)
    connection.execute(f"""
        CREATE TABLE listed AS SELECT request_id, list({{{struct}}} ORDER BY n) AS items FROM (
            SELECT s.request_id, s.item_id, s.sampling::TINYINT AS sampling, s.position::SMALLINT AS position, n,
                {sources} FROM samples s LEFT JOIN (
                SELECT request_id, item_id, {labels} FROM landings GROUP BY request_id, item_id) l
                USING (request_id, item_id)) GROUP BY request_id;
        CREATE TABLE asked AS SELECT q.*, items, (list_position({domains}, domain) - 1)::TINYINT AS domain_index,
            list_filter(list_transform(scenario, lambda s: coalesce(list_position({scenarios}, s), 0) - 1),
                lambda i: i >= 0)::TINYINT[] AS scenarios,
            CAST(hour(ts) AS VARCHAR) AS context_hour, CAST(isodow(ts) - 1 AS VARCHAR) AS context_weekday,
            {scenario("scenario")} AS context_scenario
        FROM (SELECT {columns} FROM (SELECT *, 0::TINYINT AS query_rule FROM requests
                WHERE domain = getvariable('target'))
            UNION ALL BY NAME SELECT {columns} FROM (
                SELECT * EXCLUDE (scenario, query_rule, day), coalesce(scenario, []) AS scenario,
                    query_rule::TINYINT AS query_rule,
                    make_timestamptz(asked) AS ts, CAST(make_timestamp(asked) AS DATE) AS day FROM pseudo)) q
        JOIN listed USING (request_id) WHERE kept(q.day);
        COPY (FROM asked ORDER BY day, domain, ts, request_id) TO {text(requests)} (COMPRESSION zstd);
        COPY (SELECT DISTINCT unnest(items).item_id AS key, day FROM asked) TO {text(keys / "item" / "0.parquet")};
        COPY (SELECT DISTINCT query AS key, day FROM asked WHERE query IS NOT NULL)
            TO {text(keys / "query" / "0.parquet")}""")
    retrieve.write_item_days(keys / "item", features, spec, scratch / "item_days")
    retrieve.write_query_days(keys / "query", features, spec, scratch / "query_days")
    retrieve.write_request_inputs(requests.parent, features, spec, scratch / "whole")
    for name in ("item_days", "query_days"):
        parts = [
            read_day(folder.parent, folder.name).append_column("day", pa.array([folder.name] * rows).cast(pa.date32()))
            for folder in sorted((scratch / name).glob("*-*"))
            if (rows := len(read_day(folder.parent, folder.name)))
        ]
        connection.register(f"{name}_arrow", pa.concat_tables(parts))
        connection.execute(f"CREATE TABLE {name} AS FROM {name}_arrow")
    candidates = ["item", "sampling", "position", *(f"{task}_source" for task in spec.tasks)]
    candidates += [feature.name for feature in spec.select("candidate")]
    of_query = {f.name: missing_value(f) for f in spec.select("request") if f.block == "query" and f.kind != "id"}
    made = {name: f"list_transform(lists, lambda x: x.{name})" for name in candidates}
    for task in spec.tasks:
        made[task] = f"list_transform(lists, lambda x: CAST(x.{task}_source > 0 AS TINYINT))"
    made |= {name: f"coalesce(d.{name}, {missing})::FLOAT" for name, missing in of_query.items()}
    made["query_text"] = "coalesce(d.query_text, [])"
    chosen = ", ".join(f"{made.get(name, f'w.{name}')} AS {name}" for name in row_schema(spec).names)
    listed = ", ".join(f"'{name}': {name}" for name in candidates)
    connection.execute(f"""
        CREATE TABLE assembled AS SELECT request_id, list({{{listed}}} ORDER BY n) AS lists FROM (
            SELECT f.*, i.* EXCLUDE (item_id, day) FROM (
                SELECT request_id, day, unnest(items, recursive := true), generate_subscripts(items, 1) AS n
                FROM asked) f JOIN item_days i USING (item_id, day)) GROUP BY request_id;
        COPY (SELECT {chosen}, w.day, w.domain FROM read_parquet({text(scratch / "whole" / "*.parquet")}) w
            JOIN assembled USING (request_id) LEFT JOIN query_days d ON w.query = d.query AND w.day = d.day
            ORDER BY w.day, w.domain, w.ts, request_id)
        TO {text(out / "rows")} (FORMAT parquet, PARTITION_BY (day, domain), COMPRESSION zstd)""")


def _nearest(titles: pa.Table, corpus: Path) -> pa.Table:
    """The nearest query of the shared corpus to each title (request_id, asked, text): request_id, query_row."""
    vectors = np.array(titles["text"].to_pylist(), np.float32).reshape(len(titles), -1)
    rows = nearest(corpus, vectors, titles["asked"].to_numpy())[1]
    return pa.table({"request_id": titles["request_id"], "query_row": rows}).filter(pa.array(rows >= 0))


def _int(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


def _signed(digest: int) -> int:
    return digest - (1 << 64) if digest >= 1 << 63 else digest
