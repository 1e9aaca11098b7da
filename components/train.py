"""Step: the candidate, trained on the samples."""

from kfp import dsl

from components.image import step


@step
def train(
    seed: int, settings: str, model_sizes: str, work: str, rows: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]
) -> None:
    """Train the candidate.

    Args:
        seed: seed of weights and order.
        settings: section `train` of the configuration, as JSON.
        model_sizes: section `model`, as JSON; its `name` is the architecture.
        work: folder for checkpoints, which outlives the step; a killed training goes on from there.
        rows: the samples folder.
        model: the model folder.
    """
    from pathlib import Path

    from models.launch import train_on_all
    from models.train import work_folder
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, train=settings, model=model_sizes)
    name, subset = config.model.name, config.train.samples
    checkpoints = work_folder(Path(work), config, Path(rows.path), name, subset)
    train_on_all(config, Path(rows.path), Path(model.path), name, subset, checkpoints)
