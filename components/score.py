"""Step: a registered model on the test days, alone."""

from kfp import dsl

from components.image import step


@step
def score(
    seed: int,
    gate: str,
    train: str,
    registry: str,
    name: str,
    version: str,
    rows: dsl.Input[dsl.Dataset],
    measured: dsl.Output[dsl.Artifact],
) -> None:
    """Fetch and measure a version.

    Args:
        seed: seed of the run.
        gate: section `gate` of the configuration, as JSON.
        train: section `train`, as JSON (device and batch).
        registry: URI of the model registry.
        name: registered model.
        version: its number.
        rows: the samples folder.
        measured: measures, predictions and the model.
    """
    from pathlib import Path

    from models.evaluate import evaluate
    from uniscale.config import config_from_sections
    from uniscale.registry import Registry

    config = config_from_sections(seed, gate=gate, train=train)
    out = Path(measured.path)
    model = Registry(registry, name).fetch(version, out.with_name("fetched"))
    evaluate(config, Path(rows.path), model, None, out)
