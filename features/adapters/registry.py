"""What writes a log folder for each `data.source` that is not the simulation."""

from collections.abc import Callable
from pathlib import Path

from features.adapters import expedia, journey, kuaisar, layout, qilin
from uniscale.sections import DataConfig

ADAPTERS: dict[str, Callable[[DataConfig, Path], object]] = {
    "journey": journey.write_logs,
    "expedia": expedia.write_logs,
    "qilin": qilin.write_logs,
    "kuaisar": kuaisar.write_logs,
    "logs": layout.copy_logs,
}
