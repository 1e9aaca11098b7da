"""Step: raw logs in the contract, from the simulated marketplace, an adapter, or a folder that has them already."""

from kfp import dsl

from components.image import step


@step
def logs(seed: int, data: str, simulation: str, input_hash: str, raw: dsl.Output[dsl.Dataset]) -> None:
    """Write the raw logs.

    Args:
        seed: seed of the simulation.
        data: section `data` of the configuration, as JSON.
        simulation: section `simulation`, as JSON.
        input_hash: content hash of the input path, so that changed input is read again.
        raw: the log folder.
    """
    from pathlib import Path

    from uniscale.config import config_from_sections

    config = config_from_sections(seed, data=data, simulation=simulation)
    out = Path(raw.path)
    if config.data.source == "simulation":
        from simulation.marketplace import write_logs

        write_logs(config.simulation, seed, out)
    else:
        from features.adapters.registry import ADAPTERS

        ADAPTERS[config.data.source](config.data, out)
