"""Step: candidate and champion measured on the same search-exposed test rows."""

from kfp import dsl

from components.image import step


@step
def evaluate(
    seed: int,
    gate: str,
    train: str,
    raw: dsl.Input[dsl.Dataset],
    rows: dsl.Input[dsl.Dataset],
    candidate: dsl.Input[dsl.Model],
    champion: dsl.Input[dsl.Model],
    measured: dsl.Output[dsl.Artifact],
) -> None:
    """Measure both models.

    Args:
        seed: seed of the bootstrap.
        gate: section `gate` of the configuration, as JSON.
        train: section `train`, as JSON (device and batch).
        raw: the log folder, for the truth of a simulation.
        rows: the samples folder.
        candidate: the trained model folder.
        champion: the champion's model folder.
        measured: measures, predictions and the candidate as judged.
    """
    from pathlib import Path

    from models.evaluate import evaluate
    from models.truth import truth_of
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, gate=gate, train=train)
    models = (Path(candidate.path), Path(champion.path))
    evaluate(config, Path(rows.path), *models, Path(measured.path), truth_of(Path(raw.path)))
