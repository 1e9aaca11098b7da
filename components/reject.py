"""Step: a candidate that failed the gate is kept on record; the champion stays."""

from kfp import dsl

from components.image import step


@step
def reject(
    registry: str,
    name: str,
    run_id: str,
    made_of: dsl.Input[dsl.Artifact],
    measured: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
) -> str:
    """Register without promoting; gives the version number.

    Args:
        registry: URI of the model registry.
        name: registered model.
        run_id: run that made the candidate.
        made_of: output of the lineage step, kept with the version.
        measured: output of the evaluation, which holds the candidate as judged.
        decision: output of the gate.
    """
    from pathlib import Path

    from uniscale.artifacts import read_json
    from uniscale.registry import Registry

    record, origin = Path(decision.path) / "decision.json", read_json(Path(made_of.path) / "lineage.json")
    version = Registry(registry, name).register(Path(measured.path) / "model", run_id=run_id, decision=record, **origin)
    return version.number
