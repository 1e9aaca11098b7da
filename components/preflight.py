"""Step: before anything is computed, what the cluster was to provide is there."""

from components.image import step


@step
def preflight(required: str, state: str) -> None:
    """Fail at once, and clearly, where a step would fail or hang hours later.

    Args:
        required: environment variable: where it should come from (`secret name, key …`), as JSON.
        state: folder for what outlives a run, which has to take a file; empty on a single machine.
    """
    from uniscale.preflight import check

    check(required, state)
