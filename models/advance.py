"""Continuous training: a model goes on over the days that it has not seen, each batch predicted before it is learned.

The pass is OneTrans' next-batch protocol (4.1.2, `models.next_batch`): its measures are those of a model that meets
every row before its label. Weights, statistics of the inputs and, with `train.carry_optimisers`, the optimisers go on:
day after day in runs of their own then ends in the same bits as one process over all days (`models.carry`).
"""

import tempfile
from pathlib import Path
from typing import Any

from models.checkpoint import read_card
from models.train import train, work_folder
from models.views import training_days, write_view
from uniscale.config import Config, model_section
from uniscale.errors import DataError
from uniscale.samples import SampleSpec


def unseen_days(samples: Path, model: Path) -> list[str]:
    """Training days of a samples folder after the last one that a model has seen, ISO, oldest first.

    Raises:
        DataError: there is none, or nobody knows what the model has seen.
        ModelError: no model there.
    """
    seen = read_card(Path(model))["training"].get("days")
    if not seen:
        raise DataError(f"{model} does not say which days it was trained on: train it with `uniscale train`")
    days = [day for day in training_days(samples) if day > seen[1]]
    if not days:
        raise DataError(
            f"the model has seen all training days up to {seen[1]} and {samples} has none after that: bring newer "
            "logs (days are held back for validation, test and labels that are still to come)"
        )
    return days


def advance(config: Config, samples: Path, model: Path, out: Path, work: Path) -> dict[str, Any]:
    """Predict, evaluate and train on every batch of the unseen days, in order of time.

    Args:
        config: section `train` and the seed; architecture, sizes and rows of Table 1 are the model's own.
        samples: a samples folder.
        model: model folder to go on from; it is not touched.
        out: model folder to write.
        work: root of checkpoints.

    Returns:
        The report of the training; `next_batch` in it has the measures of the predictions, `days` first and last day.

    Raises:
        DataError: see `unseen_days`.
        ModelError: no model there, or it reads other features than the samples offer.
    """
    samples, model, days = Path(samples), Path(model), unseen_days(samples, model)
    card = read_card(model)
    print(f"advance: {card['name']} over {days[0]} to {days[-1]}", flush=True)
    passing = {"next_batch": True, "epochs": 1, "sparse_start": "", "sparse_reset": False}
    sections = {
        "model": model_section(card["config"], card["name"]),
        "train": config.train.model_copy(update=passing),
    }
    chosen = config.model_copy(update=sections)
    name, subset = card["name"], card["training"]["subset"]
    with tempfile.TemporaryDirectory() as scratch:
        view = Path(scratch) / "unseen"
        write_view(samples, days[0], SampleSpec.load(samples), view)
        checkpoints = work_folder(Path(work), chosen, view, name, subset, model)
        return train(chosen, view, Path(out), name, subset, checkpoints, start=model)
