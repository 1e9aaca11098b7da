"""Step: the champion, fetched from the registry, or trained as the baseline when there is none yet."""

from kfp import dsl

from components.image import step


@step
def champion(
    seed: int,
    settings: str,
    model_sizes: str,
    work: str,
    registry: str,
    name: str,
    version: str,
    rows: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
) -> None:
    """Fetch or train the champion.

    Args:
        seed: seed of weights and order.
        settings: section `train` of the configuration, as JSON.
        model_sizes: section `model`, as JSON; its `champion` is the baseline's architecture.
        work: folder for checkpoints.
        registry: URI of the model registry.
        name: registered model.
        version: the champion's version, or `none`.
        rows: the samples folder.
        model: the model folder.
    """
    from pathlib import Path

    from models.launch import train_on_all
    from models.train import work_folder
    from uniscale.config import config_from_sections
    from uniscale.registry import Registry

    config = config_from_sections(seed, train=settings, model=model_sizes)
    if version != "none":
        Registry(registry, name).fetch(version, Path(model.path))
        return
    architecture, subset = config.model.champion, config.train.champion_samples
    checkpoints = work_folder(Path(work), config, Path(rows.path), architecture, subset)
    train_on_all(config, Path(rows.path), Path(model.path), architecture, subset, checkpoints)
