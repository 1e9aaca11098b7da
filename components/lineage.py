"""Step: what the models of this run are made from, to be kept with every version that is registered."""

from kfp import dsl

from components.image import step


@step
def lineage(
    seed: int,
    data: str,
    simulation: str,
    ingest: str,
    features: str,
    samples: str,
    model: str,
    train: str,
    gate: str,
    data_version: str,
    clean: dsl.Input[dsl.Dataset],
    made_of: dsl.Output[dsl.Artifact],
) -> None:
    """Write `lineage.json`: hashes of data and source, and the configuration.

    Args:
        seed: seed of the run.
        data: section `data` of the configuration, as JSON.
        simulation: section `simulation`, as JSON.
        ingest: section `ingest`, as JSON.
        features: section `features`, as JSON.
        samples: section `samples`, as JSON.
        model: section `model`, as JSON.
        train: section `train`, as JSON.
        gate: section `gate`, as JSON.
        data_version: what DVC and git know of the input, empty where they know nothing.
        clean: validated logs.
        made_of: the folder of `lineage.json`.
    """
    from pathlib import Path

    from uniscale.artifacts import content_hash, source_hash, write_json
    from uniscale.config import config_from_sections

    config = config_from_sections(
        seed,
        data=data,
        simulation=simulation,
        ingest=ingest,
        features=features,
        samples=samples,
        model=model,
        train=train,
        gate=gate,
    )
    kept = {"seed", "data", "simulation", "ingest", "features", "samples", "model", "train", "gate"}
    found = {"data_hash": content_hash(Path(clean.path)), "data_version": data_version, "source": source_hash()}
    write_json(Path(made_of.path) / "lineage.json", {**found, "config": config.model_dump(include=kept)})
