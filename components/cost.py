"""Step: latency and memory of candidate and champion on the reference load, for the gate."""

from kfp import dsl

from components.image import step


@step
def cost(
    seed: int,
    settings: str,
    rows: dsl.Input[dsl.Dataset],
    candidate: dsl.Input[dsl.Model],
    champion: dsl.Input[dsl.Model],
    costs: dsl.Output[dsl.Artifact],
) -> None:
    """Measure both models, offline.

    Args:
        seed: seed of the requests.
        settings: section `cost` of the configuration, as JSON.
        rows: the samples folder.
        candidate: the trained model folder.
        champion: the champion's model folder.
        costs: flat measures as JSON.
    """
    from pathlib import Path

    from models.cost import cost
    from uniscale.config import config_from_sections

    reference = config_from_sections(seed, cost=settings).cost
    cost(reference, seed, Path(rows.path), Path(candidate.path), Path(champion.path), Path(costs.path))
