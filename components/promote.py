"""Step: a candidate that passed the gate becomes the champion."""

from kfp import dsl

from components.image import step


@step
def promote(
    registry: str,
    name: str,
    run_id: str,
    input_hash: str,
    measured: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
) -> str:
    """Register and promote; gives the version number. Asking again for the same run changes nothing.

    Args:
        registry: URI of the model registry.
        name: registered model.
        run_id: run that made the candidate.
        input_hash: content hash of the run's input, kept with the version.
        measured: output of the evaluation, which holds the candidate as judged.
        decision: output of the gate.
    """
    from pathlib import Path

    from uniscale.registry import Registry

    store = Registry(registry, name)
    record = Path(decision.path) / "decision.json"
    version = store.register(Path(measured.path) / "model", run_id=run_id, decision=record, data_hash=input_hash)
    store.promote(version.number)
    return version.number
