"""Which variant a user sees: a salted hash of the user id, stable across processes and testable offline."""

from collections.abc import Mapping

from uniscale.errors import ConfigError
from uniscale.hashing import unit_interval


def assign(user_id: str, salt: str, weights: Mapping[str, float]) -> str:
    """Variant of a user: the hash of `salt:user_id` falls into the cumulated weights, in the order given.

    Raises:
        ConfigError: no variant, a negative weight, or weights that do not sum to 1.
    """
    total = sum(weights.values())
    if not weights or min(weights.values()) < 0 or abs(total - 1.0) > 1e-6:
        raise ConfigError(f"variant weights must be non-negative and sum to 1, got {dict(weights)}")
    point = unit_interval(f"{salt}:{user_id}")
    upper = 0.0
    for variant, weight in weights.items():
        upper += weight
        if point < upper:
            return variant
    return variant
