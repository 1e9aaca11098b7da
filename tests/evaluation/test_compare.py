"""Comparing systems: differences over seeds by hand, one training a system, resuming, and the pages."""

import json
import shutil
import statistics
from dataclasses import replace

import pytest

from models.budget import dense_parameters, sized
from models.compare import Data, System, Table, compare, difference_over_seeds
from models.compare_page import markdown, page
from models.paper_tables import TABLES
from models.zoo import ZOO
from tests.models.small import small_config, small_samples
from uniscale.config import override
from uniscale.errors import ConfigError, ModelError
from uniscale.samples import SampleSpec

SYSTEMS = [System.parse("dlrm_mlp@search"), System.parse("dlrm_mlp@entire,train.epochs=1")]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    samples = small_samples(out / "samples")
    config = small_config("gate.bootstrap_resamples=100")
    data = {seed: Data(samples, None) for seed in (1, 2)}
    return config, data, out, compare(config, data, Table(tuple(SYSTEMS)), out)


def test_the_interval_over_seeds_is_students(compared):
    found = difference_over_seeds([0.01, 0.03], [(0, 0), (0, 0)], 0.95)
    # mean 0.02; standard error 0.01; t with one degree of freedom 12.7062
    assert found["mean"] == pytest.approx(0.02)
    assert (found["low"], found["high"]) == pytest.approx((0.02 - 0.127062, 0.02 + 0.127062), abs=1e-6)
    assert difference_over_seeds([0.5], [(0.2, 0.7)], 0.95) == {"mean": 0.5, "low": 0.2, "high": 0.7, "by_seed": [0.5]}


def test_differences_are_those_of_the_same_seed_to_the_base(compared):
    _, _, _, result = compared
    base, other = result["systems"]
    assert (result["base"], result["seeds"]) == ("dlrm_mlp@search", [1, 2])
    assert not base["differences"]
    for name in ("click.auc", "click.gauc"):
        expected = [b - a for a, b in zip(*(s["measures"][name]["by_seed"] for s in (base, other)), strict=True)]
        assert other["differences"][name]["by_seed"] == pytest.approx(expected)


def test_what_is_finished_is_not_done_again(compared):
    config, data, out, result = compared
    models = sorted((out / "models").iterdir())
    assert len(models) == 4  # two systems, two seeds
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert compare(config, data, Table(tuple(SYSTEMS)), out) == result
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_the_pages_show_every_system_and_call_the_first_the_base(compared):
    result = compared[3]
    text, html = markdown(result), page(result, "A title")
    assert "| base |" in text
    for system in SYSTEMS:
        assert system.label in text and system.label in html
    assert f"{result['systems'][1]['differences']['click.gauc']['mean']:+.4f}" in text
    assert html.count("<td") == html.count("<td data-label=") > 0 and 'data-label="by seed"' in html


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hhsft", "not model@rows"),
        ("hhsft@entir", "did you mean entire"),
        ("hhsf@entire", "did you mean hhsft"),
    ],
)
def test_a_wrong_system_is_refused_with_the_remedy(text, message):
    with pytest.raises(ConfigError, match=message):
        System.parse(text)


def test_a_comparison_needs_two_different_systems(compared):
    config, data, out, _ = compared
    with pytest.raises(ConfigError, match="at least two different systems"):
        compare(config, data, Table((SYSTEMS[0], SYSTEMS[0])), out)


def test_a_system_whose_model_refuses_the_data_is_not_run_and_the_others_are(compared, tmp_path):
    config, data, _, result = compared
    narrow = tmp_path / "samples"
    shutil.copytree(data[1].samples, narrow)
    spec = SampleSpec.load(narrow)
    kept = tuple(feature for feature in spec.features if feature.level != "behaviour")
    replace(spec, features=kept, content_dim=0, text_dim=0).save(narrow)
    systems = (System("base", "dlrm_mlp", "search"), System("EST", "est", "search"), System("DCN", "dcnv2", "search"))
    found = compare(config, {1: Data(narrow, None)}, Table(systems), tmp_path / "out")
    assert [system["label"] for system in found["systems"]] == ["base", "DCN"]
    assert "est reads behaviours and the dataset has none" in found["not_run"]["EST"]
    assert "| EST | not run: est reads behaviours" in markdown(found)
    assert '<td data-label="why">est reads behaviours' in page(found, "A title")
    assert not result["not_run"]
    with pytest.raises(ModelError, match="est reads behaviours"):
        compare(config, {1: Data(narrow, None)}, Table((systems[1], systems[0])), tmp_path / "other")


def test_every_row_of_the_papers_tables_names_a_model_and_settings_that_exist():
    config = small_config()
    for table in TABLES.values():
        labels = {system.label for system in table.systems}
        assert len(labels) == len(table.systems)
        assert all(label in labels for line in table.curves.values() for label in line)
        for system in table.systems:
            assert system.model in ZOO
            assert set(system.paper) <= set(table.measures)
            override(config, system.settings)
            parsed = System.parse(system.text)  # a list among the settings holds commas
            assert (parsed.model, parsed.subset, parsed.settings) == (system.model, system.subset, system.settings)


def test_a_table_shows_its_columns_and_says_what_it_cannot(compared):
    config, data, out, _ = compared
    table = Table(
        (SYSTEMS[0], replace(SYSTEMS[1], paper={"conversion.qauc": 0.3})),
        ("click.uauc", "conversion.qauc", "like.auc"),
        "How to read it.",
        {"another product": "it is not ours"},
        {"line": (SYSTEMS[0].label, SYSTEMS[1].label)},
    )
    found = compare(config, data, table, out)
    text, html = markdown(found), page(found, "A title")
    assert text.splitlines()[0].count("click.uauc") == 2 and "click.auc" not in text
    assert "(paper +0.0030)" in text and "| like.auc | not run: the data has no such measure" in text
    assert "| another product | not run: it is not ours" in text and "How to read it." in html
    assert html.count("<svg") >= 2  # gain along parameters and along FLOPs
    spread = found["systems"][0]["measures"]["click.uauc"]
    assert f"{spread['mean']:.4f} ± {spread['spread']:.4f}" in text
    assert spread["spread"] == pytest.approx(statistics.stdev(spread["by_seed"]))


def test_table_1_stands_beside_the_published_multiples(compared):
    config, data, out, _ = compared
    manifest = data[1].samples / "manifest.json"
    kept = manifest.read_text()
    row = {"stage": "search-exposed", "requests": 10, "samples": 30, "click_positives": 4}
    row |= {f"{name}_x": 1.5 for name in ("requests", "samples", "click_positives")}
    try:
        manifest.write_text(json.dumps({**json.loads(kept), "table1": [row]}))
        table = Table(tuple(SYSTEMS), stages={"search-exposed": (1.0, 3.0, 2.0)})
        found = compare(config, {1: data[1]}, table, out)
    finally:
        manifest.write_text(kept)
    assert "| search-exposed | 10 (1.50x, paper 1.0x) | 30 (1.50x, paper 3.0x) | 4 (1.50x, paper 2.0x) |" in markdown(
        found
    )
    assert '<td data-label="samples">30 (1.50x, paper 3.0x)</td>' in page(found, "A title")


def test_every_system_tries_the_same_learning_rates_and_validation_chooses(compared, tmp_path):
    config, data, _, _ = compared
    found = compare(config, {1: data[1]}, Table(tuple(SYSTEMS)), tmp_path, rates=[0.01, 1e-9])
    assert len(list((tmp_path / "models").iterdir())) == 4  # two systems, two rates
    assert [system["learning_rate"] for system in found["systems"]] == [[0.01], [0.01]]  # 1e-9 learns nothing
    assert "best of the learning rates 0.01, 1e-09" in markdown(found)


@pytest.mark.parametrize("model", sorted(ZOO))
def test_a_budget_sets_the_width_that_comes_closest(model, samples):
    config, spec = small_config(), SampleSpec.load(samples)
    system = System.parse(f"{model}@search")
    counts = {}
    for budget in (8_000, 30_000):
        counts[budget] = dense_parameters(config, spec, sized(config, samples, system, budget))
        assert counts[budget] == pytest.approx(budget, rel=0.5), counts
    assert counts[8_000] < counts[30_000]
