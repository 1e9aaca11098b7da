"""Step: drift of inputs, labels and predictions between the training days and the test days."""

from kfp import dsl

from components.image import step


@step
def drift(
    seed: int,
    settings: str,
    rows: dsl.Input[dsl.Dataset],
    measured: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
) -> None:
    """Compare a later day with the training days.

    Args:
        seed: seed of the sample that the report is drawn on.
        settings: section `drift` of the configuration, as JSON.
        rows: the samples folder.
        measured: output of the evaluation, for the predictions.
        report: scores as JSON, gauges, and Evidently's page.
    """
    from pathlib import Path

    from monitoring.drift import drift
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, drift=settings)
    drift(config, Path(rows.path), Path(report.path), predictions=Path(measured.path) / "predictions.parquet")
