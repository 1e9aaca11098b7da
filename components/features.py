"""Step: point-in-time feature tables, the Feast repository and its online store."""

from kfp import dsl

from components.image import step


@step
def features(
    seed: int, settings: str, samples: str, clean: dsl.Input[dsl.Dataset], tables: dsl.Output[dsl.Dataset]
) -> None:
    """Build the features.

    Args:
        seed: seed of the text encoder.
        settings: section `features` of the configuration, as JSON.
        samples: section `samples`, as JSON (the split decides what the text encoder may see).
        clean: validated logs.
        tables: the feature folder.
    """
    from pathlib import Path

    from features.build import build_features
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, features=settings, samples=samples)
    build_features(config, Path(clean.path), Path(tables.path))
