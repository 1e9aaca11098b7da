"""Step: make sure that there is a champion: a baseline trained for want of one is registered and takes the seat."""

from kfp import dsl

from components.image import step


@step
def seat(
    registry: str,
    name: str,
    version: str,
    run_id: str,
    made_of: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
) -> str:
    """Give the champion's version number, registering the baseline when there was none.

    Args:
        registry: URI of the model registry.
        name: registered model.
        version: the champion's version, or `none`.
        run_id: run that trained the baseline; asking again for the same run changes nothing.
        made_of: output of the lineage step, kept with a baseline.
        model: the champion's model folder.
    """
    from pathlib import Path

    from uniscale.artifacts import read_json
    from uniscale.registry import Registry

    if version != "none":
        return version
    store = Registry(registry, name)
    baseline = store.register(
        Path(model.path), run_id=f"{run_id}-baseline", **read_json(Path(made_of.path) / "lineage.json")
    )
    store.promote(baseline.number, force=True, reason="the first champion: a baseline, with nothing to beat")
    return baseline.number
