"""Step: the decision whether the candidate may be promoted."""

from kfp import dsl

from components.image import step


@step
def gate(
    seed: int,
    rules: str,
    measured: dsl.Input[dsl.Artifact],
    drifted: dsl.Input[dsl.Artifact],
    costs: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
) -> str:
    """Decide: `promote` or `reject`.

    Args:
        seed: seed of the run.
        rules: section `gate` of the configuration, as JSON.
        measured: output of the evaluation.
        drifted: output of the drift step, whose measures the rules may refer to.
        costs: output of the cost step, likewise.
        decision: the decision with its numbers, as JSON and as a page.
    """
    from pathlib import Path

    from models.gate import decide
    from uniscale.config import config_from_sections

    rules_of_run = config_from_sections(seed, gate=rules).gate
    measures, *more = (Path(folder.path) / "measures.json" for folder in (measured, drifted, costs))
    return decide(rules_of_run, measures, Path(decision.path), more)
