"""Step: logs that keep the contract, with violating rows in quarantine."""

from kfp import dsl

from components.image import step


@step
def ingest(seed: int, rules: str, raw: dsl.Input[dsl.Dataset], clean: dsl.Output[dsl.Dataset]) -> None:
    """Validate the logs.

    Args:
        seed: seed of the run.
        rules: section `ingest` of the configuration, as JSON.
        raw: the log folder as it came.
        clean: the log folder without violating rows, with report and quarantine.
    """
    from pathlib import Path

    from features.ingest import ingest
    from uniscale.config import config_from_sections

    ingest(config_from_sections(seed, ingest=rules).ingest, Path(raw.path), Path(clean.path))
