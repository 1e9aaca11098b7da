"""Continuous training: the champion goes on, sees only new days, and is measured before it learns them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.advance import advance, unseen_days
from models.checkpoint import load_model, read_card
from models.data import Position, Reader
from models.metrics import auc
from models.train import train
from models.views import training_days, write_view
from tests.models.small import small_config, small_samples
from uniscale.artifacts import read_json, write_json
from uniscale.errors import DataError, ModelError
from uniscale.samples import LabelSource, SampleSpec, Sampling

CONFIG = small_config("train.batch_samples=128", "train.ema=0.0")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return small_samples(tmp_path_factory.mktemp("samples") / "s")  # three training days


@pytest.fixture(scope="module")
def earlier(samples, tmp_path_factory):
    """The same samples with the first training day alone."""
    folder = tmp_path_factory.mktemp("earlier") / "s"
    write_view(samples, training_days(samples)[0], SampleSpec.load(samples), folder)
    manifest = read_json(folder / "manifest.json")
    manifest["splits"]["train"] = training_days(samples)[:1] * 2
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture(scope="module")
def champion(earlier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("champion")
    train(CONFIG, earlier, folder / "model", "dlrm_mlp", "search", folder / "work")
    return folder / "model"


@pytest.fixture(scope="module")
def advanced(samples, champion, tmp_path_factory):
    folder = tmp_path_factory.mktemp("advanced")
    before = champion.joinpath("model.safetensors").read_bytes()
    report = advance(CONFIG, samples, champion, folder / "model", folder / "work")
    assert champion.joinpath("model.safetensors").read_bytes() == before
    return folder / "model", report


def test_only_the_unseen_days_are_learned_and_then_none_is_left(samples, champion, advanced):
    days = training_days(samples)
    assert unseen_days(samples, champion) == days[1:]
    folder, report = advanced
    assert report["days"] == [days[1], days[-1]] and report["subset"] == "search"
    assert (read_card(folder)["name"], read_card(folder)["training"]["days"]) == ("dlrm_mlp", report["days"])
    with pytest.raises(DataError, match=f"seen all training days up to {days[-1]}"):
        unseen_days(samples, folder)


def test_the_first_batch_is_predicted_by_the_champion_itself(samples, champion, tmp_path):
    """With one batch for all rows, next-batch measures are those of the champion on the new day."""
    days, card = training_days(samples), read_json(champion / "model.json")
    shutil.copytree(champion, tmp_path / "begun")
    card["training"]["days"] = days[:2]
    write_json(tmp_path / "begun" / "model.json", card)
    config = small_config("train.batch_samples=100000")
    report = advance(config, samples, tmp_path / "begun", tmp_path / "m", tmp_path / "w")
    write_view(samples, days[-1], SampleSpec.load(samples), tmp_path / "view")
    reader = Reader(tmp_path / "view", "train", "search", 100000, seed=CONFIG.seed, by_time=True)
    model = load_model(champion)
    with torch.no_grad():
        logits = torch.cat([model(batch) for _, batch in reader.batches(Position(0, 0, 0))])[:, 0].numpy()
    labels = []
    for rows in reader.in_time(keys=("user_id",)):
        shown = (rows.sampling == Sampling.EXPOSED) & (rows.label_source[:, 0] >= 0)
        assert shown.all()  # search rows are exposed rows of the target domain
        labels.append((rows.labels * (rows.label_source == LabelSource.IN_DOMAIN))[:, 0])
    expected = auc(np.concatenate(labels), logits.astype(np.float64))
    assert report["steps"] == 1
    assert report["next_batch"]["click"]["auc"] == pytest.approx(expected, abs=1e-6)


def test_it_goes_on_from_the_champions_weights_and_statistics(champion, advanced):
    old, new = load_model(champion), load_model(advanced[0])
    fresh_scale = {name: value for name, value in old.state_dict().items() if "prior" in name or "mean" in name}
    assert fresh_scale and all(torch.equal(new.state_dict()[name], value) for name, value in fresh_scale.items())
    moved = [(new.state_dict()[name] - value).abs().mean() for name, value in old.named_parameters()]
    other = [value.abs().mean() for _, value in old.named_parameters()]
    assert 0 < sum(moved) < sum(other)  # a start at random would be as far away as the weights are large


def test_a_model_that_says_no_days_or_reads_other_features_is_refused(samples, champion, tmp_path):
    card = read_json(champion / "model.json")
    shutil.copytree(champion, tmp_path / "old")
    write_json(tmp_path / "old" / "model.json", {**card, "training": {"subset": "search"}})
    with pytest.raises(DataError, match="does not say which days"):
        unseen_days(samples, tmp_path / "old")
    spec = SampleSpec.load(samples)
    write_view(samples, training_days(samples)[0], replace(spec, features=spec.features[1:]), tmp_path / "less")
    with pytest.raises(ModelError, match="reads other features"):
        advance(CONFIG, tmp_path / "less", champion, tmp_path / "m", tmp_path / "w")


def test_the_step_is_the_function(samples, champion, advanced, tmp_path):
    from uniscale.cli.steps import call

    folders = {"rows": samples, "champion": champion, "model": tmp_path / "model"}
    call("advance", seed=CONFIG.seed, settings=CONFIG.train, work=str(tmp_path / "work"), **folders)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert weights == (advanced[0] / "model.safetensors").read_bytes()


NEXT = ("train.next_batch=true", "train.epochs=1", "train.batch_samples=128", "model.dropout=0.1")
SLOW_START = "train.warmup_steps=1000"  # longer than a day: the second day's steps depend on how many the first had


def until(samples, last, out):
    """The samples with their training days up to `last`."""
    write_view(samples, training_days(samples)[0], SampleSpec.load(samples), out)
    manifest = read_json(out / "manifest.json")
    manifest["splits"]["train"][1] = last
    write_json(out / "manifest.json", manifest)
    return out


@pytest.mark.parametrize("settings", [(), ("train.dense_optimiser=rmsprop",), ("train.ema=0.9",)], ids=str)
def test_a_day_in_each_of_two_runs_ends_in_the_bits_of_one_process(samples, tmp_path, settings):
    first, second, _ = training_days(samples)
    config = small_config(*NEXT, SLOW_START, *settings)
    one, both = until(samples, first, tmp_path / "one"), until(samples, second, tmp_path / "both")
    train(config, both, tmp_path / "whole", "dlrm_mlp", "search", tmp_path / "w")
    train(config, one, tmp_path / "begun", "dlrm_mlp", "search", tmp_path / "w")
    report = advance(config, both, tmp_path / "begun", tmp_path / "gone on", tmp_path / "w")
    assert report["days"] == [second, second] and report["steps_before"] > 0
    for name in ("model.safetensors", "optimiser.safetensors"):  # the latter has moments, accumulators and generators
        whole, gone_on = (load_file(tmp_path / folder / name) for folder in ("whole", "gone on"))
        assert whole.keys() == gone_on.keys()
        assert [key for key in whole if not torch.equal(whole[key], gone_on[key])] == [], name
    anew = config.model_copy(update={"train": config.train.model_copy(update={"carry_optimisers": False})})
    assert advance(anew, both, tmp_path / "begun", tmp_path / "anew", tmp_path / "w")["steps_before"] == 0
    assert not (tmp_path / "anew" / "optimiser.safetensors").exists()
    weights = [load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "anew")]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_optimisers_of_another_kind_are_refused_unless_they_start_anew(samples, champion, tmp_path):
    other = small_config("train.dense_optimiser=rmsprop")
    with pytest.raises(ModelError, match=r"was trained with adamw, train\.dense_optimiser is rmsprop"):
        advance(other, samples, champion, tmp_path / "m", tmp_path / "w")
    anew = small_config("train.dense_optimiser=rmsprop", "train.carry_optimisers=false")
    assert advance(anew, samples, champion, tmp_path / "m", tmp_path / "w")["steps_before"] == 0
