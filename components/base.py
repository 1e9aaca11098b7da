"""Step: the system that the others of a sweep are measured against."""

from kfp import dsl

from components.image import step


@step
def base(
    seed: int,
    model: str,
    train: str,
    gate: str,
    system: str,
    work: str,
    raw: dsl.Input[dsl.Dataset],
    rows: dsl.Input[dsl.Dataset],
    tried: dsl.Output[dsl.Artifact],
) -> None:
    """Train and judge the base.

    Args:
        seed: seed of weights, order and bootstrap.
        model: section `model` of the configuration, as JSON.
        train: section `train`, as JSON.
        gate: section `gate`, as JSON (confidence and resamples).
        system: model@rows, then changed settings after commas.
        work: folder for checkpoints.
        raw: the log folder, for the truth of a simulation.
        rows: the samples folder.
        tried: model, evaluation and trial.json.
    """
    from pathlib import Path

    from models.compare import Data
    from models.trials import trial
    from models.truth import truth_of
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, model=model, train=train, gate=gate)
    data = Data(Path(rows.path), truth_of(Path(raw.path)))
    trial(config, data, system, None, Path(tried.path), Path(work))
