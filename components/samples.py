"""Step: list-wise samples by ES3 on Spark."""

from kfp import dsl

from components.image import step


@step
def samples(
    seed: int,
    settings: str,
    features: str,
    spark: str,
    clean: dsl.Input[dsl.Dataset],
    tables: dsl.Input[dsl.Dataset],
    rows: dsl.Output[dsl.Dataset],
) -> None:
    """Build the samples.

    Args:
        seed: seed of the unexposed sampling.
        settings: section `samples` of the configuration, as JSON.
        features: section `features`, as JSON.
        spark: section `spark`, as JSON.
        clean: validated logs.
        tables: the feature folder.
        rows: the samples folder.
    """
    from pathlib import Path

    from features.es3.build import build_samples
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, samples=settings, features=features, spark=spark)
    build_samples(config, Path(clean.path), Path(tables.path), Path(rows.path))
