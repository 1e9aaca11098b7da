"""Configuration: strict, complete, and errors that name the key and the remedy."""

from pathlib import Path

import pytest
import yaml

from uniscale.config import config_from_sections, load_config
from uniscale.errors import ConfigError


def test_embedded_values_load() -> None:
    assert load_config().model.name == "hhsft"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epoch=3", "unknown key train.epoch; did you mean epochs?"),
        ("trian.epochs=3", "unknown key trian; did you mean train?"),
        ("train.epochs=0", "train.epochs = 0: Input should be greater than or equal to 1"),
        ("train.epochs", "--set takes key=value"),
        ("train.epochs=[", "not valid YAML"),
        ("train=3", "train = 3"),
        ("model.champion=dcn", "model.champion = 'dcn' is unknown; did you mean dcnv2?"),
        ("model.encoder=dinn", "model.encoder = 'dinn' is unknown; did you mean din?"),
        ("model.head=moe", "model.head = 'moe' is unknown; did you mean mmoe?"),
    ],
)
def test_a_wrong_override_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert said in str(caught.value)


def test_a_missing_key_and_an_unknown_one_in_a_file(tmp_path) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text())
    del raw["train"]["epochs"]
    raw["serving"]["prot"] = 1
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "missing key train.epochs" in str(caught.value)
    assert "unknown key serving.prot; did you mean port?" in str(caught.value)


def test_no_such_file(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no config file .*/absent\.yaml: copy params\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_sections_travel_as_json() -> None:
    config = load_config(None, ["gate.confidence=0.9", "seed=11"])
    again = config_from_sections(11, gate=config.gate.model_dump_json())
    assert again.gate == config.gate and again.seed == 11


def test_a_source_brings_its_own_values_and_the_user_still_wins(tmp_path) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text())
    raw["sources"] = {"journey": {"samples": {"warmup_days": 21, "test_days": 9}}}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    config = load_config(path, ["data.source=journey", "samples.test_days=5"])
    assert (config.samples.warmup_days, config.samples.test_days) == (21, 5)
    assert load_config(path, ["data.source=simulation"]).samples == load_config(None).samples
