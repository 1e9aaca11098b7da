"""Samples by day: which days a build opens, and rows equal to those of a build of all days."""

import shutil
from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.build import build_features
from features.es3.build import build_samples
from features.es3.increment import Made, days_to_build
from features.splits import Splits
from tests.es3.conftest import CONFIG
from tests.es3.test_build import read_rows
from uniscale.errors import DataError

SPLITS = Splits(
    train=(date(2026, 1, 3), date(2026, 1, 6)),
    valid=(date(2026, 1, 7), date(2026, 1, 7)),
    test=(date(2026, 1, 10), date(2026, 1, 10)),
    tail_days=2,
)


def january(*days):
    return tuple(date(2026, 1, day) for day in days)


def made(logs, written):
    return Made(
        {}, {f"2026-01-{day:02d}": text for day, text in logs.items()}, {str(day): {} for day in january(*written)}
    )


@pytest.mark.parametrize(
    ("changed", "written", "built"),
    [
        ({}, (3, 4, 5, 6, 7, 10), ()),
        ({12: "new"}, (3, 4, 5, 6, 7, 9), (10,)),
        ({12: "late"}, (3, 4, 5, 6, 7, 10), (10,)),  # two days before the late rows
        ({1: "late"}, (3, 4, 5, 6, 7, 10), (3,)),  # two days after them
        ({5: "late"}, (3, 4, 5, 6, 7, 10), (3, 4, 5, 6, 7)),
        ({}, (3, 4, 6, 7, 10), (5,)),
    ],
    ids=["nothing", "a new day", "late at the end", "late before", "late in between", "never built"],
)  # fmt: skip
def test_days_within_a_tail_of_what_changed_are_opened(changed, written, built):
    before = {day: "same" for day in range(1, 13) if changed.get(day) != "new"}
    now = made({**before, **changed}, ()).logs
    assert days_to_build(SPLITS, now, made(before, written)) == january(*built)


def test_a_day_of_logs_that_is_gone_opens_its_surroundings():
    logs = dict.fromkeys(range(1, 13), "same")
    now = made({day: text for day, text in logs.items() if day != 1}, ()).logs
    assert days_to_build(SPLITS, now, made(logs, (3, 4, 5, 6, 7, 10))) == january(3)
    assert days_to_build(SPLITS, now, None) == SPLITS.days


@pytest.fixture(scope="module")
def root(market, tmp_path_factory):
    """Logs of 14 days (`whole`), their first 13 (`early`), and all with late rows of the 8th (`late`)."""
    folder = tmp_path_factory.mktemp("increment")
    shutil.copytree(market / "logs", folder / "whole")
    items = pq.read_table(folder / "whole" / "items.parquet")
    shutil.copytree(folder / "whole", folder / "early", ignore=shutil.ignore_patterns("day=2026-01-18"))
    new = {
        **items.slice(0, 1).to_pylist()[0],
        "item_id": "0-comes-first",
        "valid_from": datetime(2026, 1, 18, tzinfo=UTC),
    }
    new_items = pa.concat_tables([items, pa.Table.from_pylist([new], schema=items.schema)])
    pq.write_table(new_items, folder / "whole" / "items.parquet")
    shutil.copytree(folder / "whole", folder / "late")
    shown = duckdb.sql(f"""
        SELECT user_id, item_id, e.ts FROM '{folder}/whole/exposures/day=2026-01-08/*.parquet' e
        JOIN '{folder}/whole/requests/day=2026-01-08/*.parquet' r USING (request_id)
        WHERE r.domain = 'search' ORDER BY ALL LIMIT 60""").fetchall()
    file = next((folder / "late" / "events" / "day=2026-01-08").glob("*.parquet"))
    table = pq.ParquetFile(file).read()
    end = datetime(2026, 1, 9, tzinfo=UTC) - timedelta(microseconds=1)
    more = [
        {"event_id": f"late-{n}", "user_id": user, "item_id": item, "ts": min(ts + timedelta(minutes=30), end),
         "domain": "recommendation", "type": ("click", "purchase")[n % 2]}
        for n, (user, item, ts) in enumerate(shown)
    ]  # fmt: skip
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(more, schema=table.schema)]), file)
    build_features(CONFIG, folder / "early", folder / "features_early")
    build_features(CONFIG, folder / "whole", folder / "features", folder / "features_early")
    return folder


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_a_new_day_and_late_rows_give_the_rows_of_a_whole_build(root, spark, tmp_path):
    features, late = root / "features", root / "late"
    build_samples(CONFIG, root / "early", root / "features_early", tmp_path / "early", spark)
    manifest = build_samples(CONFIG, late, features, tmp_path / "grown", spark, tmp_path / "early")
    whole = build_samples(CONFIG, late, features, tmp_path / "whole", spark)
    # The new day is the 18th, the late rows are the 8th's, and the tail is of two days.
    assert manifest["days"]["built"] == [f"2026-01-{day:02d}" for day in (7, 8, 9, 10, 12, 16)]
    assert manifest["days"]["kept"] == ["2026-01-11", "2026-01-15"]
    rows = read_rows(tmp_path / "whole")
    assert read_rows(tmp_path / "grown").equals(rows)
    assert {k: v for k, v in manifest.items() if k not in ("days", "listwise_bytes")} == {
        k: v for k, v in whole.items() if k not in ("days", "listwise_bytes")
    }
    before = read_rows(tmp_path / "early")

    def positives(table):
        of_day = table.filter(pa.array([day == "2026-01-08" for day in table["day"].to_pylist()]))
        return sum(sum(labels) for name in ("click", "conversion") for labels in of_day[name].to_pylist())

    assert positives(rows) > positives(before)
    again = build_samples(CONFIG, late, features, tmp_path / "again", previous=tmp_path / "grown")  # without Spark
    assert again["days"]["built"] == [] and read_rows(tmp_path / "again").equals(rows)
    assert again["events"] == whole["events"]


def test_days_of_another_recipe_or_numbering_are_not_taken_over(root, tmp_path):
    from features.es3.increment import check_earlier, recipe_of

    features = root / "features"
    recipe = recipe_of(features, CONFIG.samples, CONFIG.seed)
    with pytest.raises(DataError, match="built with another negatives, seed"):
        check_earlier(tmp_path, features, Made({**recipe, "seed": 1, "negatives": 9}, {}, {}), recipe)
    items = pq.read_table(features / "items.parquet")
    pq.write_table(items.slice(1), tmp_path / "items.parquet")
    with pytest.raises(DataError, match="numbered otherwise"):
        check_earlier(tmp_path, features, Made(recipe, {}, {}), recipe)
    pq.write_table(items.slice(0, 5), tmp_path / "items.parquet")
    check_earlier(tmp_path, features, Made(recipe, {}, {}), recipe)


def test_features_after_earlier_ones_keep_their_encoder_and_the_numbers_of_their_items(root):
    early, late = root / "features_early", root / "features"
    old, new = (pq.read_table(folder / "items.parquet") for folder in (early, late))
    assert new.slice(0, len(old)).equals(old) and new["item_id"][len(old) :].to_pylist() == ["0-comes-first"]
    assert (early / "text_encoder" / "encoder.safetensors").read_bytes() == (
        late / "text_encoder" / "encoder.safetensors"
    ).read_bytes()
