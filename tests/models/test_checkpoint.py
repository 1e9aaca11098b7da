"""Model folders: calibration, half-precision files, and files that are not a model."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.batches import to_batch
from models.checkpoint import load_model, save_model
from models.zoo import build_model
from tests.models.small import small_config, small_model, some_rows
from tests.sample_folder import SPEC
from uniscale.errors import ModelError


@pytest.fixture
def folder(tmp_path):
    save_model(small_model("dlrm_mlp"), tmp_path / "model", seed=0, training={"steps": 3})
    return tmp_path / "model"


def test_calibration_in_the_folder_is_platt_scaling_of_the_logit(folder, samples, tmp_path):
    batch = to_batch(*some_rows(samples))
    model = load_model(folder)
    with torch.no_grad():
        logits = model(batch)
    torch.testing.assert_close(model.score(batch), torch.sigmoid(logits))
    model.calibrate({"click": {"a": 0.5, "b": -1.0}})
    save_model(model, tmp_path / "calibrated", seed=0)
    scores = load_model(tmp_path / "calibrated").score(batch)
    torch.testing.assert_close(scores[:, 0], torch.sigmoid(0.5 * logits[:, 0] - 1.0))
    torch.testing.assert_close(scores[:, 1], torch.sigmoid(logits[:, 1]))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"like": {"a": 1.0, "b": 0.0}}, "unknown task 'like'"),
        ({"click": {"a": -1.0, "b": 0.0}}, "a > 0"),
        ({"click": {"a": float("nan"), "b": 0.0}}, "finite a > 0"),
        ({"click": {"slope": 1.0}}, "finite a > 0 and b"),
    ],
)
def test_a_calibration_that_is_none_is_refused(folder, calibration, message):
    with pytest.raises(ModelError, match=message):
        load_model(folder).calibrate(calibration)


def test_half_precision_weights_load_as_float32(folder, samples):
    batch = to_batch(*some_rows(samples))
    exact = load_model(folder).score(batch)
    file = folder / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    model = load_model(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.score(batch), exact, rtol=0, atol=1e-3)


def test_a_model_older_than_another_architecture_still_loads_but_not_without_its_own_sizes(folder, samples):
    batch = to_batch(*some_rows(samples))
    exact = load_model(folder).score(batch)
    card = json.loads((folder / "model.json").read_text())

    def without(section):
        config = {key: value for key, value in card["config"].items() if key != section}
        (folder / "model.json").write_text(json.dumps({**card, "config": config}))
        return load_model(folder)

    assert torch.equal(without("hhsft").score(batch), exact)
    with pytest.raises(ModelError, match=r"missing key model\.dlrm_mlp"):
        without("dlrm_mlp")


def test_what_is_not_a_model_is_refused_by_name(folder, tmp_path):
    with pytest.raises(ModelError, match=r"no file .*model\.json"):
        load_model(tmp_path / "nowhere")
    card = json.loads((folder / "model.json").read_text())

    def with_card(**changes):
        (folder / "model.json").write_text(json.dumps({**card, **changes}))
        return load_model(folder)

    with pytest.raises(ModelError, match="model 'hhsftt' is unknown; did you mean hhsft"):
        with_card(name="hhsftt")
    with pytest.raises(ModelError, match=r"does not fit the configuration in model\.json"):
        with_card(config={**card["config"], "embedding_dim": 8})
    with pytest.raises(ModelError, match="cannot be read as a model"):
        with_card(spec={"features": []})
    with pytest.raises(ModelError, match="cannot be read as a model"):
        with_card(config={})
    with_card()
    (folder / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(ModelError, match="cannot be read as a model"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no .*model\.safetensors"):
        load_model(folder)
    (folder / "model.json").write_text("{}")
    with pytest.raises(ModelError, match="lacks"):
        load_model(folder)


@pytest.mark.parametrize("name", ["dlrm_mlp", "hhsft", "onetrans", "est", "mdl", "mtgr"])
def test_samples_that_no_model_can_rank_are_refused_by_what_they_lack(name):
    def build(**changes):
        return build_model(name, replace(SPEC, **changes), small_config().model, 0)

    of_candidates = [feature for feature in SPEC.features if feature.level == "candidate"]
    others = tuple(feature for feature in SPEC.features if feature.level != "candidate")
    with pytest.raises(ModelError, match="no feature of the candidates"):
        build(features=others, content_dim=0, text_dim=0)
    offers = tuple(replace(feature, block="offer") for feature in of_candidates)
    with pytest.raises(ModelError, match=r"no candidate feature of the block 'item'.*its blocks are offer"):
        build(features=(*others, *offers), content_dim=0, text_dim=0)
    kept = tuple(feature for feature in SPEC.features if feature.level != "request")
    with pytest.raises(ModelError, match="no feature of requests"):
        build(features=kept, text_dim=0, scenarios=())
