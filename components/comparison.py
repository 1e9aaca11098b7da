"""Step: the table of a sweep, with a power law where its systems are sizes of one model."""

from kfp import dsl

from components.image import step


@step
def comparison(
    seed: int,
    gate: str,
    runs: str,
    run_id: str,
    against: dsl.Input[dsl.Artifact],
    tried: dsl.Input[list[dsl.Artifact]],
    table: dsl.Output[dsl.Artifact],
) -> None:
    """Sum up the trials.

    Args:
        seed: seed of the run.
        gate: section `gate` of the configuration, as JSON (confidence).
        runs: folder of all runs, in which this one keeps its summary.
        run_id: the run, which names its folder.
        against: output of the base.
        tried: outputs of the trials.
        table: comparison.json, .md and .html.
    """
    from pathlib import Path

    from models.trials import tables, tabulate
    from uniscale.config import config_from_sections
    from uniscale.run_report import write_report

    confidence = config_from_sections(seed, gate=gate).gate.confidence
    found = tabulate([Path(one.path) for one in (against, *tried)], confidence, Path(table.path))
    write_report(Path(runs) / run_id, "Sweep", tables(found), {"comparison": found})
