"""The same SQL on DuckDB and on Spark gives the same tables of requests and users."""

from datetime import timedelta

import duckdb
import pytest

from monitoring.definition import pipeline_definition
from monitoring.experiment import analyse_logs
from monitoring.outcomes import load_outcomes
from monitoring.tables import DuckDB, Spark, in_spark
from tests.monitoring.ab_logs import START, config, rewrite, write_experiment
from uniscale.errors import DataError

PAIR = ("champion", "candidate")
CHOICES = (
    {},
    {"since": "2026-03-03", "until": "2026-03-03"},
    {"window": 2},
    {"new": True, "scenario": "keyword"},
)


def test_what_duckdb_alone_can_say_is_said_in_sparks_words():
    found = in_spark("SELECT a FROM t WHERE list_contains($b, a) QUALIFY row_number() OVER (PARTITION BY a) = 1")
    assert "QUALIFY" not in found and "ARRAY_CONTAINS(:b, a)" in found


@pytest.mark.parametrize("make", [DuckDB, lambda connection: Spark(connection, None, None)])
def test_a_log_that_is_not_there_is_named_by_either_engine(make, tmp_path):
    with duckdb.connect() as connection, pytest.raises(DataError, match="no serving log in"):
        make(connection).source(tmp_path, "serving log")


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.xdist_group("spark")
def test_users_and_their_sums_are_those_of_duckdb(spark, tmp_path):
    """Logs with repeated rows, a user of both variants, users without a past, and changed queries."""
    paths = write_experiment(tmp_path / "data", users=60, before_days=2, lift=0.5, requests_per_day=3.0)
    rewrite(paths["serving_log"], lambda rows: [*rows, rows[0], rows[0] | {"request_id": "x", "variant": "candidate"}])
    rewrite(paths["serving_log"], lambda rows: [*rows, rows[0] | {"request_id": "y", "variant": "champion"}])
    rewrite(paths["logs"] / "events", lambda rows: [*rows, *rows[:5]])
    rewrite(paths["pre_period"] / "requests", lambda rows: [row for row in rows if not row["user_id"].endswith("7")])
    given = (paths["serving_log"], paths["logs"], paths["pre_period"], PAIR, START + timedelta(hours=3))
    with duckdb.connect() as here, duckdb.connect() as there:
        plain = load_outcomes(DuckDB(here), *given)
        in_spark = load_outcomes(Spark(there, spark, tmp_path / "scratch"), *given)
        for table in ("served", "asked", "requests", "user_days", "before"):
            assert _rows(in_spark, table) == _rows(plain, table), table
        for chosen in CHOICES:
            expected = _rows(plain, plain.users(**chosen))
            assert expected and _rows(in_spark, in_spark.users(**chosen)) == expected, chosen


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.xdist_group("spark")
def test_the_whole_analysis_is_that_of_duckdb(spark, tmp_path):
    paths = write_experiment(tmp_path / "data", users=120, before_days=2, lift=0.3, requests_per_day=3.0)
    rewrite(paths["serving_log"], lambda rows: [*rows, rows[0]])
    given = (pipeline_definition(config(), *PAIR), paths["serving_log"], paths["logs"])
    here, there = (
        analyse_logs(*given, tmp_path / name, paths["pre_period"], spark=session)
        for name, session in (("here", None), ("there", spark))
    )
    assert here["by_day"] and here["cuts"]["rows"] and any(row["cuped"] for row in here["metrics"])
    assert _rounded(there) == _rounded(here)
    assert (tmp_path / "there" / "experiment.html").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "here", "there"]  # Spark's tables are gone


def _rounded(value):
    """Numbers to nine digits: sums are added in another order, and differences of them follow."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return f"{value:.9g}" if isinstance(value, float) else value


def _rows(outcomes, table):
    """Rows in order, sums to twelve digits: their order of adding is not the same."""
    names = [name for name, *_ in outcomes.rows(f"DESCRIBE {table}")]
    rows = outcomes.rows(f"SELECT * FROM {table}")
    return names, sorted(tuple(f"{v:.12g}" if isinstance(v, int | float) else str(v) for v in row) for row in rows)
