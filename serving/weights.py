"""A model folder with its matrices in float16: half the bytes to ship and to load; widened again where that computes.

Vectors (biases, norms, the inputs' means and deviations) stay float32: they are a thousandth of the bytes, and a mean
far from zero would lose what standardisation leaves.
"""

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from uniscale.errors import ServingError

LIMIT = float(np.finfo(np.float16).max)


def export_half(model: Path, out: Path) -> None:
    """Copy a model folder, every floating-point tensor of two or more dimensions as float16.

    Raises:
        ServingError: the folder holds no model, or a weight is not finite or beyond float16 (65504).
    """
    model, out = Path(model), Path(out)
    if not (model / "model.safetensors").exists():
        raise ServingError(f"no model.safetensors in {model}: give a folder that training wrote")
    tensors = load_file(model / "model.safetensors")
    for name, values in tensors.items():
        if not np.issubdtype(values.dtype, np.floating) or values.ndim < 2:
            continue
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= LIMIT:
            raise ServingError(f"weight {name} of {model} reaches {largest}, float16 ends at {LIMIT:g}: train again")
        tensors[name] = values.astype(np.float16)
    out.mkdir(parents=True)
    save_file(tensors, out / "model.safetensors")
    shutil.copy2(model / "model.json", out / "model.json")
