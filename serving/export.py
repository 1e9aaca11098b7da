"""What a service loads: a model folder with float16 matrices and the record of its scores on the probe."""

from pathlib import Path

from models.checkpoint import load_model
from serving import probe
from serving.weights import export_half


def export(model: Path, out: Path) -> None:
    """Write the export of a trained model folder (see `serving.weights` and `serving.probe`).

    Raises:
        ServingError: no model, or a weight beyond float16.
        ModelError: the folder cannot be loaded.
    """
    export_half(model, out)
    probe.record(load_model(out), load_model(model), out)
