"""A log cut at a day and continued by the days after it is the log again; what does not go together is refused."""

import json
import shutil

import duckdb
import pyarrow.parquet as pq
import pytest

from features.log_days import cut, days_between, days_of, extend
from tests.features.log_folder import random_logs
from uniscale.errors import DataError
from uniscale.logs import TABLES


@pytest.fixture
def logs(tmp_path):
    return random_logs().write(tmp_path / "logs")


def rows(folder, name):
    """Rows of a table as a sorted list of texts."""
    files = f"{folder}/{name}/**/*.parquet" if TABLES[name].by_day else f"{folder}/{name}.parquet"
    with duckdb.connect() as connection:
        found = connection.execute(f"FROM read_parquet('{files}', hive_partitioning = false)").fetchall()
    return sorted(map(str, found))


def only_after(logs, day, out):
    """The days of a log after one, as another log folder."""
    shutil.copytree(logs, out)
    for part in [part for part in out.glob("*/day=*") if part.name <= f"day={day}"]:
        shutil.rmtree(part)
    return out


def test_what_is_cut_off_and_put_back_is_the_whole(logs, tmp_path):
    day = days_of(logs)[2]
    cut(logs, day, tmp_path / "then")
    assert days_of(tmp_path / "then") == days_of(logs)[:3]
    assert max(days_of(tmp_path / "then", "events")) <= day  # labels of that day's requests that came later are missing
    later = only_after(logs, day, tmp_path / "later")
    extend(tmp_path / "then", later, tmp_path / "again")
    for name in TABLES:
        assert rows(tmp_path / "again", name) == rows(logs, name), name


def test_a_user_that_both_know_is_the_later_one(logs, tmp_path):
    day = days_of(logs)[2]
    cut(logs, day, tmp_path / "then")
    later = only_after(logs, day, tmp_path / "later")
    users = pq.read_table(later / "users.parquet").to_pydict()
    first, users["gender"][0] = users["user_id"][0], "changed"
    kept = {name: values[:1] for name, values in users.items()}
    pq.write_table(
        pq.read_table(later / "users.parquet").schema.empty_table().from_pydict(kept), later / "users.parquet"
    )
    extend(tmp_path / "then", later, tmp_path / "again")
    found = pq.read_table(tmp_path / "again" / "users.parquet").to_pydict()
    of = dict(zip(found["user_id"], found["gender"], strict=True))
    assert of[first] == "changed" and set(of) == set(users["user_id"]) and len(found["user_id"]) == len(of)


def test_a_day_of_both_and_logs_of_two_sources_are_refused(logs, tmp_path):
    with pytest.raises(DataError, match=f"both have requests on {days_of(logs)[0]}"):
        extend(logs, logs, tmp_path / "twice")
    later = only_after(logs, days_of(logs)[-1], tmp_path / "later")
    described = json.loads((later / "description.json").read_text())
    (later / "description.json").write_text(json.dumps({**described, "name": "another"}))
    with pytest.raises(DataError, match="only logs of one source"):
        extend(logs, later, tmp_path / "mixed")
    assert not (tmp_path / "twice").exists() and not (tmp_path / "mixed").exists()


def test_days_are_those_with_requests_and_an_empty_end_is_the_newest(logs):
    days = days_of(logs)
    assert days_between(logs, "", "") == days[-1:]
    assert days_between(logs, days[1], "") == days[1:]
    assert days_between(logs, days[0], days[1]) == days[:2]
    with pytest.raises(DataError, match=f"no requests from 1999-01-01 to 1999-01-02; it has days {days[0]} to"):
        days_between(logs, "1999-01-01", "1999-01-02")
