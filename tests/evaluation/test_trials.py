"""A sweep's trials, run apart, give the table that one comparison gives; a refused system is on record."""

import pytest

from models.compare import Data, System, Table, compare
from models.scaling import placed, sweep_point
from models.trials import tables, tabulate, trial
from tests.models.small import small_config, small_samples
from uniscale.artifacts import read_json
from uniscale.errors import ConfigError, ModelError
from uniscale.samples import SampleSpec

CONFIG = small_config("train.epochs=1", "gate.bootstrap_resamples=100", "train.batch_samples=512")
SYSTEMS = ["dlrm_mlp@search", *(f"dcnv2@search,model.dcnv2.rank={rank}" for rank in (2, 4, 8))]
REFUSED = "hhsft@search,train.sparse_start=/nowhere"


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    root = tmp_path_factory.mktemp("trials")
    data = Data(small_samples(root / "samples"), None)
    for place, system in enumerate([*SYSTEMS, REFUSED]):
        trial(CONFIG, data, system, root / "0" if place else None, root / str(place), root / "work")
    found = tabulate([root / str(place) for place in range(5)], CONFIG.gate.confidence, root / "table")
    return root, data, found


def test_the_table_is_that_of_one_comparison(tried):
    root, data, found = tried
    table = Table(tuple(System.parse(text) for text in SYSTEMS))
    at_once = compare(CONFIG, {CONFIG.seed: data}, table, root / "at_once")
    for one, other in zip(found["systems"], at_once["systems"], strict=True):
        assert {**one, "samples_per_second": 0} == {**other, "samples_per_second": 0}
    assert found["base"] == SYSTEMS[0] and found["seeds"] == [CONFIG.seed]
    assert {path.name for path in (root / "table").iterdir()} == {f"comparison.{end}" for end in ("json", "md", "html")}


def test_sizes_of_one_model_get_a_fit_or_the_reason_for_none(tried):
    _, _, found = tried
    assert set(found["fits"]) == {"forward_flops_per_sample", "dense_parameters"}
    assert all("alpha" in fit or "3 needed" in fit["reason"] for fit in found["fits"].values())
    titles = [title for title, _, _ in tables(found)]
    assert titles == [f"Against {SYSTEMS[0]}", "Gain in GAUC as E · X^α"]


def test_a_system_that_cannot_be_trained_is_said_and_a_base_that_cannot_ends_the_sweep(tried, tmp_path):
    _, data, found = tried
    assert "sparse_start" in found["not_run"][REFUSED]
    assert tables(found)[0][2][-1][0] == REFUSED
    with pytest.raises(ModelError, match="sparse_start"):
        trial(CONFIG, data, REFUSED, None, tmp_path / "base", tmp_path / "work")


def test_a_place_of_an_axis_is_trained_as_a_sweep_over_it_trains_it(tried, tmp_path):
    root, data, _ = tried
    trial(CONFIG, data, "dcnv2@search,data=0.5", root / "0", tmp_path / "half", tmp_path / "work")
    found = read_json(tmp_path / "half" / "trial.json")["result"]
    point = ("dcnv2@search", SYSTEMS[0], "data", 0.5, "gauc", tmp_path / "sweep")
    alone = sweep_point(CONFIG, data.samples, None, *point)
    assert found["measures"]["difference.click.gauc"]["value"] == alone["gain"]
    assert found["samples_per_epoch"] == alone["samples_per_epoch"]
    assert not any(path.is_symlink() for path in (tmp_path / "half").rglob("*"))
    whole = read_json(root / "1" / "trial.json")["result"]
    assert found["samples_per_epoch"] < whole["samples_per_epoch"]  # the newest two of three days


def test_places_become_settings_and_views_and_wrong_ones_are_refused(tried, tmp_path):
    samples = tried[1].samples
    system = System.parse("onetrans_d@entire,depth=2,train.epochs=1,length=4")
    settled, seen = placed(system, samples, tmp_path)
    assert settled.settings == ("model.onetrans.layers=2", "train.epochs=1")
    assert SampleSpec.load(seen).max_behaviours == 4
    refused = {
        "est@search,length=11": "length = 11, but the samples hold 10 behaviours: set features.max_behaviours",
        "est@search,data=1.5": "data = 1.5 is no place of that axis: take shares of the days, above 0 to 1",
        "est@search,width=0": "width = 0 is no place of that axis: take numbers from 1",
        "est@search,depth=two": "depth=two takes a number, e.g. depth=1",
        "dlrm_mlp@search,depth=2": "dlrm_mlp has no depth to sweep",
    }
    for text, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            placed(System.parse(text), samples, tmp_path)
