import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.drift import drift, judge
from monitoring.drift_report import PROJECT
from monitoring.drift_rows import batches, watched
from monitoring.drift_sample import Reservoir
from tests.sample_folder import SPEC, write_samples
from uniscale.artifacts import read_json
from uniscale.config import load_config
from uniscale.errors import DataError
from uniscale.samples import Feature, Sampling

TESTED = sum(f.level != "behaviour" for f in SPEC.features) + 1 + len(SPEC.tasks)  # 1: the length of the history


def rewrite_test_days(folder, change):
    """Apply change(row) to every row of the target domain's test days."""
    first = read_json(folder / "manifest.json")["splits"]["test"][0]
    for file in folder.glob("rows/day=*/domain=search/*.parquet"):
        if file.parent.parent.name.removeprefix("day=") >= first:
            table = pq.read_table(file, partitioning=None)
            rows = table.to_pylist()
            for row in rows:
                change(row)
            pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    samples = write_samples(folder / "samples", requests_per_day=150)
    found = drift(load_config(), samples, folder / "out", workspace=folder / "workspace")
    return samples, found, folder / "out"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A price in cents, a category remapped, a feature frozen, another lost, clicks that stop being logged."""
    folder = tmp_path_factory.mktemp("planted")
    samples = write_samples(folder / "samples", requests_per_day=150)

    def change(row):
        row["item_price"] = [100 * price for price in row["item_price"]]
        row["item_category_1"] = [category + 1 for category in row["item_category_1"]]
        row["query_clicks_7d"] = None
        row["user_clicks_7d"] = 3
        row["click"] = [0 if n % 2 else label for n, label in enumerate(row["click"])]

    rewrite_test_days(samples, change)
    predictions = predict(samples, folder / "predictions.parquet")
    return drift(load_config(), samples, folder / "out", predictions), folder / "out"


def predict(samples, path):
    """Predictions of the test days alone; the second half of those days is scored half as high again."""
    rows = []
    for file in sorted(samples.glob("rows/day=*/domain=search/*.parquet")):
        last = file.parent.parent.name == "day=2026-01-12"
        if file.parent.parent.name >= "day=2026-01-11":
            for row in pq.read_table(file, columns=["request_id", "item"], partitioning=None).to_pylist():
                values = np.linspace(0.05, 0.4, len(row["item"])) * (1.5 if last else 1.0)
                rows.append({"request_id": row["request_id"], "day": "unused", "click": values.tolist()})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def named(result, key, name, domain="search"):
    return next(row for row in result[key] if row["name"] == name and row["domain"] == domain)


def test_quiet_data_stays_quiet(quiet):
    result = quiet[1]
    assert result["verdict"] == "quiet", result["drifted"]
    assert result["drifted"] == [] and result["measures"]["drift.share"] == 0.0


def test_every_column_of_every_domain_is_scored(quiet):
    result = quiet[1]
    for domain in SPEC.domains:
        scored = {row["name"] for row in result["columns"] if row["domain"] == domain}
        assert scored == {f.name for f in SPEC.features} | {"behaviour_length"}
    assert {row["name"] for row in result["labels"]} == set(SPEC.tasks)


def test_evidently_ran_one_test_a_column(quiet, planted):
    for result in (quiet[1], planted[0]):
        assert result["tests"] == len(result["evidently"]) == TESTED - len(result["untested"])
    assert quiet[1]["untested"] == [] and planted[0]["untested"] == ["query_clicks_7d"]


def test_a_workspace_gets_the_report_as_a_run_of_one_project(quiet):
    from evidently.ui.workspace import Workspace

    kept = Workspace.create(str(quiet[2].parent / "workspace"))
    [project] = kept.search_project(PROJECT)
    assert len(kept.list_runs(project.id)) == 1


def test_planted_shifts_are_found_and_named(planted):
    result = planted[0]
    assert result["verdict"] == "warn"
    found = {row["name"] for row in result["columns"] if row["drifted"] and row["domain"] == "search"}
    assert found == {"item_price", "item_category_1", "query_clicks_7d", "user_clicks_7d"}
    named_faults = {row["name"]: row["fault"].split(":")[0] for row in result["columns"] if row["fault"]}
    assert named_faults["query_clicks_7d"] == "no longer filled" and "item_clicks_7d" not in named_faults
    assert named_faults["item_price"] == "rescaled" and named_faults["user_clicks_7d"] == "frozen"
    assert any("item_price: rescaled: values times" in line and "unit" in line for line in result["drifted"])
    assert "missing share" in named(result, "columns", "query_clicks_7d")["why"]
    assert "PSI" in named(result, "columns", "item_price")["why"]
    assert "JS" in named(result, "columns", "item_category_1")["why"]
    assert not any(row["drifted"] for row in result["columns"] if row["domain"] != "search")
    failed = {test["column"] for test in result["evidently"] if not test["passed"]}
    assert {"item_price", "item_category_1"} <= failed


def test_a_label_that_halves_is_found(planted):
    clicks = named(planted[0], "labels", "click")
    assert clicks["drifted"] and clicks["change"] == pytest.approx(-0.5, abs=0.15)


def test_predictions_of_the_test_days_alone_are_split_by_day(planted):
    scored = named(planted[0], "predictions", "click")
    assert scored["drifted"] and scored["psi"] > 0.1
    assert any("2026-01-12 to 2026-01-12 are compared with those of 2026-01-11" in note for note in planted[0]["notes"])


def test_many_drifted_columns_are_a_verdict_of_drift(quiet):
    columns = [row | {"drifted": True, "why": "PSI"} for row in quiet[1]["columns"]]
    tests = [type("Test", (), {"passed": True})] * 4
    assert judge(load_config().drift, "search", columns, [], [], tests)["verdict"] == "drift"


def test_label_rates_count_exposed_candidates_and_in_domain_labels_only(quiet):
    samples, result, _ = quiet
    hits = rows = 0
    for file in samples.glob("rows/day=*/domain=search/*.parquet"):
        if file.parent.parent.name <= "day=2026-01-09":
            for row in pq.read_table(file, partitioning=None).to_pylist():
                for sampling, click, source in zip(row["sampling"], row["click"], row["click_source"], strict=True):
                    if sampling == Sampling.EXPOSED:
                        rows += 1
                        hits += click and source == 1
    assert named(result, "labels", "click")["reference"] == pytest.approx(hits / rows)
    assert named(result, "columns", "item_price")["reference_rows"] == rows


def test_the_calendar_is_not_watched():
    spec = replace(SPEC, features=(*SPEC.features, Feature("context_weekday", "context", "id", "request")))
    assert watched(spec, "search") == watched(SPEC, "search")


def test_request_features_are_counted_once_a_request(quiet):
    samples, result, _ = quiet
    assert named(result, "columns", "user_clicks_7d")["reference_rows"] == 5 * 150
    one = next(batches(samples, SPEC, "search", ("2026-01-05", "2026-01-05")))
    assert one.requests == 150 and len(one.values["user_clicks_7d"]) == 150
    assert len(one.values["item_price"]) == len(one.request) == len(one.values["click"])
    assert one.values["behaviour_length"].sum() == len(one.values["behaviour_item"])


def test_outputs_are_finite_json_a_page_and_gauges(planted):
    result, folder = planted
    assert json.loads((folder / "drift.json").read_text())["verdict"] == result["verdict"]
    assert read_json(folder / "measures.json") == result["measures"]
    page = (folder / "drift.html").read_text()
    assert "<html" in page[:2000].lower()
    body = page.split("<body>")[1]
    assert body.index("<h1>Verdict:") < body.index("root_metric")
    kinds = set()
    for line in (folder / "drift.prom").read_text().splitlines():
        if line.startswith("# TYPE "):
            assert line.endswith(" gauge") and line.split()[2] not in kinds
            kinds.add(line.split()[2])
        elif not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert math.isfinite(float(value)) and name.split("{")[0] in kinds
    assert (
        'uniscale_drift_drifted{domain="search",column="item_price",level="candidate"} 1'
        in (folder / "drift.prom").read_text()
    )


def test_labels_are_watched_in_the_target_domain_only():
    assert [c.name for c in watched(SPEC, "search") if c.kind == "label"] == list(SPEC.tasks)
    assert not [c for c in watched(SPEC, "ads") if c.kind == "label"]


def test_a_reservoir_is_a_uniform_sample_of_aligned_rows():
    reservoir = Reservoir(200, np.random.default_rng(0))
    for start in range(0, 5000, 500):
        values = np.arange(start, start + 500)
        reservoir.add({"a": values, "b": -values})
    assert len(reservoir.columns["a"]) == 200 and (reservoir.columns["a"] == -reservoir.columns["b"]).all()
    assert reservoir.columns["a"].mean() == pytest.approx(2500, abs=4 * 5000 / math.sqrt(12 * 200))


def test_a_window_without_rows_is_a_clear_error(tmp_path):
    samples = write_samples(tmp_path / "samples", requests_per_day=5)
    for file in samples.glob("rows/day=2026-01-1[12]/domain=search/*.parquet"):
        file.unlink()
    with pytest.raises(DataError, match="no rows of search in the current window"):
        drift(load_config(), samples, tmp_path / "out")
    assert not (tmp_path / "out").exists()
