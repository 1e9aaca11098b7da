"""Step: the champion taken forward over the days that it has not seen, each batch predicted before it is learned."""

from kfp import dsl

from components.image import step


@step
def advance(
    seed: int,
    settings: str,
    work: str,
    rows: dsl.Input[dsl.Dataset],
    champion: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
) -> None:
    """Predict, evaluate and train on the unseen days.

    Args:
        seed: seed of the run.
        settings: section `train` of the configuration, as JSON.
        work: folder for checkpoints, which outlives the step.
        rows: the samples folder.
        champion: the model folder to go on from.
        model: the model folder; its card has the measures of the predictions.
    """
    from pathlib import Path

    from models.advance import advance
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, train=settings)
    advance(config, Path(rows.path), Path(champion.path), Path(model.path), Path(work))
