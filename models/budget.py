"""One size for all systems of a comparison: the width of each is chosen so that its dense parameters come close.

Depth, heads and all other sizes stay; embeddings are not counted, which all systems share.
"""

from dataclasses import replace
from pathlib import Path

from models.compare import System
from models.scaling import setting_of
from models.zoo import build_model, spec_of
from uniscale.config import Config, override
from uniscale.errors import ConfigError, ModelError
from uniscale.samples import SampleSpec

NARROWEST, WIDEST = 4, 1024


def dense_parameters(config: Config, spec: SampleSpec, system: System) -> int:
    """Parameters of a system's model besides its embedding tables."""
    chosen = override(config, [*system.settings, "model.table_rows=16"])  # tables do not count, so they stay small
    model = build_model(system.model, spec, chosen.model, config.seed)
    return sum(p.numel() for p in model.parameters()) - model.inputs.tables.weight.numel()


def sized(config: Config, samples: Path, system: System, budget: int) -> System:
    """The system at the width whose dense parameters are closest to a budget.

    Widths that the model refuses (heads or tokens do not divide them) are passed over.

    Raises:
        ConfigError: the model has no width to set, or no width up to 1024 that it takes.
    """
    spec, best, gap = spec_of(system.model, SampleSpec.load(samples), config.model), None, float("inf")
    for width in range(NARROWEST, WIDEST + 1, 2):
        candidate = replace(system, settings=(*system.settings, *setting_of(system.model, "width", width)))
        try:
            count = dense_parameters(config, spec, candidate)
        except (ConfigError, ModelError):
            continue
        if abs(count - budget) < gap:
            best, gap = candidate, abs(count - budget)
        if count > budget:
            break
    if best is None:
        raise ConfigError(f"{system.label}: no width from {NARROWEST} to {WIDEST} gives a model")
    return best
