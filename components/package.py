"""Step: an immutable deployment (weights in FP16, online store, Bento) of the variants that will answer."""

from kfp import dsl

from components.image import step


@step
def package(
    seed: int,
    serving: str,
    experiment: str,
    features: str,
    control_version: str,
    treatment_version: str,
    tables: dsl.Input[dsl.Dataset],
    control: dsl.Input[dsl.Artifact],
    treatment: dsl.Input[dsl.Artifact],
    deployment: dsl.Output[dsl.Artifact],
) -> None:
    """Build the deployment of two variants.

    Args:
        seed: seed of the run.
        serving: section `serving` of the configuration, as JSON.
        experiment: section `experiment`, as JSON (salt and weights of the variants).
        features: section `features`, as JSON.
        control_version: registered version behind the control variant.
        treatment_version: registered version behind the treatment variant.
        tables: the feature folder with its online store.
        control: model folder, or a folder that holds one as `model`.
        treatment: the same for the treatment.
        deployment: the deployment folder.
    """
    from pathlib import Path

    from serving.deploy import package
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, serving=serving, experiment=experiment, features=features)
    folders = [Path(artifact.path) for artifact in (control, treatment)]
    folders = [folder / "model" if (folder / "model").is_dir() else folder for folder in folders]
    variants = dict(zip(config.experiment.weights, folders, strict=True))
    versions = dict(zip(config.experiment.weights, (control_version, treatment_version), strict=True))
    package(config, Path(tables.path), variants, versions, Path(deployment.path))
