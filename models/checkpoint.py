"""Model folders: `model.json` (name, sizes, spec, calibration, report) and `model.safetensors`; no pickles.

Weights are written as float32; a file of half-precision weights loads too, converted to float32.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.ranking import RankingModel
from models.zoo import build_model
from uniscale.artifacts import read_json, write_json
from uniscale.config import model_section
from uniscale.errors import ConfigError, DataError, ModelError
from uniscale.samples import SampleSpec

KEYS = ("name", "config", "spec", "seed", "calibration", "training")


def save_model(model: RankingModel, folder: Path, seed: int, training: Mapping[str, Any] | None = None) -> None:
    """Write a model folder (see `uniscale.artifacts.atomic_folder` for all or nothing).

    Args:
        model: on any device.
        folder: made if need be.
        seed: of the run, kept for the record.
        training: report of the training, JSON-able.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    calibration = {
        task: {"a": float(model.slope[i]), "b": float(model.intercept[i])} for i, task in enumerate(model.spec.tasks)
    }
    identity = all(value == {"a": 1.0, "b": 0.0} for value in calibration.values())
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    write_json(
        folder / "model.json",
        {
            "name": model.name,
            "config": model.config.model_dump(),
            "spec": model.spec.as_json(),
            "seed": seed,
            "calibration": None if identity else calibration,
            "training": dict(training or {}),
        },
    )


def load_model(folder: Path, device: str | torch.device = "cpu") -> RankingModel:
    """Read a model folder; the model is in evaluation mode, with its calibration applied by `score`.

    Raises:
        ModelError: a file is missing or not what `save_model` writes, or the weights do not fit the configuration.
    """
    folder = Path(folder)
    card = read_card(folder)
    weights_file = folder / "model.safetensors"
    try:
        spec = SampleSpec.from_json(card["spec"])
        config = model_section(card["config"], card["name"])
        weights = load_file(weights_file)
    except FileNotFoundError:
        raise ModelError(f"no {weights_file}: the folder is not a trained model; train it again") from None
    except (SafetensorError, ConfigError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} cannot be read as a model ({error}); train it again") from None
    model = build_model(card["name"], spec, config, seed=card["seed"])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{weights_file} does not fit the configuration in model.json: {error}") from None
    model.calibrate(card["calibration"] or {})
    return model.to(device).eval()


def read_card(folder: Path) -> dict[str, Any]:
    """`model.json` of a folder.

    Raises:
        ModelError: missing, not JSON, or without one of its keys.
    """
    try:
        card = read_json(Path(folder) / "model.json")
    except DataError as error:
        raise ModelError(str(error)) from None
    missing = [key for key in KEYS if not isinstance(card, dict) or key not in card]
    if missing:
        raise ModelError(f"{folder}/model.json lacks {missing}: it is not the card of a model")
    return card
