"""Step: which registered version the candidate has to beat."""

from components.image import step


@step
def resolve(registry: str, name: str, requested: str) -> str:
    """Name the champion's version, `none` when the registry has none.

    Args:
        registry: URI of the model registry.
        name: registered model.
        requested: a version, `none`, or `current` for the one the champion alias points at.
    """
    from uniscale.registry import Registry

    if requested != "current":
        return requested
    champion = Registry(registry, name).champion()
    return champion.number if champion else "none"
