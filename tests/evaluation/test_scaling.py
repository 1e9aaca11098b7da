"""Scaling sweeps: a known power law is found again, views keep their promise, a sweep is resumed and says its gaps."""

import numpy as np
import pytest

from models.compare import Data, System
from models.data import Reader
from models.scaling import (
    KEYS,
    SECTIONS,
    markdown,
    per_decade,
    plots,
    power_law,
    setting_of,
    sweep,
    sweep_point,
    view,
)
from tests.models.small import small_config, small_samples
from uniscale.config import override
from uniscale.errors import ConfigError
from uniscale.samples import SampleSpec


def test_a_power_law_is_found_again_and_what_has_no_logarithm_is_left_out():
    law = [(x, 0.02 * x**0.12) for x in (1e5, 2e5, 8e5, 3e6)]
    found = power_law([*law, (1e5, -0.01), (1e4, 0.0)], 0.95, seed=0)
    assert (found["E"], found["alpha"]) == pytest.approx((0.02, 0.12))
    assert found["alpha_interval"] == pytest.approx([0.12, 0.12])
    assert found["E_interval"] == pytest.approx([0.02, 0.02])
    assert (found["points"], found["left_out"]) == (4, 2)
    assert power_law(law[:2], 0.95, seed=0) == {
        "reason": "2 sizes have a gain above zero (0 of 2 gains have not); 3 needed"
    }


def test_intervals_hold_the_exponent_of_a_noisy_law():
    rng = np.random.default_rng(1)
    points = [(x, 0.02 * x**0.3 * np.exp(rng.normal(0, 0.05))) for x in np.geomspace(1, 100, 30)]
    low, high = power_law(points, 0.95, seed=0)["alpha_interval"]
    assert low < 0.3 < high < low + 0.1


def test_the_gain_for_ten_times_the_cost_takes_every_gain():
    found = per_decade([(x, 0.01 * np.log10(x) - 0.04) for x in (1e3, 1e4, 1e5)], 0.95, seed=0)
    assert found["slope"] == pytest.approx(0.01)
    assert found["interval"] == pytest.approx([0.01, 0.01])
    assert per_decade([(1.0, 0.1), (2.0, 0.2)], 0.95, seed=0) is None


def test_every_size_of_an_axis_is_a_setting_that_exists():
    for axis, models in KEYS.items():
        for model in {*models, *SECTIONS}:
            override(small_config(), setting_of(model, axis, 12))
    assert setting_of("onetrans_d", "model.onetrans.ns_tokens", 4) == ("model.onetrans.ns_tokens=4",)
    with pytest.raises(ConfigError, match="is no size of est: give a key"):
        setting_of("est", "model.mdl.dim", 2)
    with pytest.raises(ConfigError, match="dlrm_mlp has no depth to sweep"):
        setting_of("dlrm_mlp", "depth", 2)
    with pytest.raises(ConfigError, match="axis 'dept' is unknown; did you mean depth"):
        setting_of("est", "dept", 2)


def test_views_have_fewer_behaviours_or_the_newest_training_days(tmp_path):
    samples = small_samples(tmp_path / "market" / "samples")
    short = view(samples, "length", 3, tmp_path)
    assert SampleSpec.load(short).max_behaviours == 3
    whole, half = (
        Reader(folder, "train", "entire", 64, 0) for folder in (samples, view(samples, "data", 0.5, tmp_path))
    )
    newest = sorted({file.path.parent.parent.name for file in whole.files})[-2:]
    assert {file.path.parent.parent.name for file in half.files} == set(newest)
    assert view(samples, "depth", 2, tmp_path) == samples


def test_a_sweep_measures_every_value_once_and_writes_a_table_and_plots(tmp_path):
    samples = small_samples(tmp_path / "market" / "samples")
    config = small_config("gate.bootstrap_resamples=100", "train.epochs=1")
    wanted = (config, {3: Data(samples, None)}, System.parse("autoint@search"), System.parse("dlrm_mlp@search"))
    found = sweep(*wanted, "depth", [1, 2, 3], tmp_path / "out")
    flops = [point["forward_flops_per_sample"] for point in found["points"]]
    assert flops[1] - flops[0] == pytest.approx(flops[2] - flops[1], rel=0.01)  # a layer costs what a layer costs
    assert len(list((tmp_path / "out" / "models").iterdir())) == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert sweep(*wanted, "depth", [1, 2, 3], tmp_path / "out") == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert f"{found['points'][1]['gains'][0]:+.4f}" in markdown(found)
    assert plots(found).count("<h2>") == 2
    longer = sweep(*wanted, "length", [3, 10], tmp_path / "out")
    assert [point["behaviours"] for point in longer["points"]] == [3, 10]
    assert "reason" in longer["fits"]["behaviours"] and "no fit" in markdown(longer)
    trained = len(list((tmp_path / "out" / "models").iterdir()))
    with pytest.raises(ConfigError, match="the samples hold 10 behaviours"):
        sweep(*wanted, "length", [5, 11], tmp_path / "out")
    assert len(list((tmp_path / "out" / "models").iterdir())) == trained
    with pytest.raises(ConfigError, match="at least two values"):
        sweep(*wanted, "depth", [1], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"key model\.autoint\.dimm"):
        sweep(*wanted, "model.autoint.dimm", [8, 16], tmp_path / "other")
    assert not (tmp_path / "other").exists()  # refused before anything was trained
    point = (samples, None, "autoint@search", "dlrm_mlp@search", "depth", 2)
    alone = sweep_point(override(config, ["seed=3"]), *point, "gauc", tmp_path / "out")
    assert alone["gain"] == found["points"][1]["gains"][0]  # the unit of work of a sweep, from plain arguments
    with pytest.raises(ConfigError, match="measure 'gaucc' is unknown; did you mean gauc"):
        sweep_point(config, *point, "gaucc", tmp_path / "out")
