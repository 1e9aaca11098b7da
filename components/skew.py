"""Step: the features of served requests, as the service had them and as the samples have them."""

from kfp import dsl

from components.image import step


@step
def skew(
    seed: int, settings: str, serving_log: str, rows: dsl.Input[dsl.Dataset], compared: dsl.Output[dsl.Artifact]
) -> None:
    """Compare the service's log of its inputs with the samples of the same requests.

    Args:
        seed: seed of the run.
        settings: section `drift` of the configuration, as JSON (share that is skew).
        serving_log: folder of the serving log.
        rows: the samples folder.
        compared: skew.json.
    """
    from pathlib import Path

    from monitoring.skew import feature_skew
    from uniscale.artifacts import write_json
    from uniscale.config import config_from_sections

    warn = config_from_sections(seed, drift=settings).drift.skew_warn
    write_json(Path(compared.path) / "skew.json", feature_skew(Path(serving_log), Path(rows.path), warn))
