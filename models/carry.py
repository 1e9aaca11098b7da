"""What the optimisers of a training know, kept beside the model's weights, so that a later run goes on as one process.

`optimiser.safetensors` of a model folder holds AdamW's moments (or RMSProp's), row-wise Adagrad's accumulators, the
running average's raw weights and the random generators, all of the moment of the kept weights; its metadata says how
many steps that was, since the warm-up counts them, and how the loss was scaled.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.optimisers import Optimisers
from uniscale.errors import ModelError

FILE = "optimiser.safetensors"


def keep(folder: Path, optimisers: Optimisers, known: dict[str, Tensor], steps: int) -> None:
    """Write the file.

    Args:
        folder: gets it.
        optimisers: of the training.
        known: their `tensors` while the kept weights are the model's, averaged where there is an average.
        steps: taken so far.
    """
    drawn = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        drawn["rng.cuda"] = torch.cuda.get_rng_state()
    tensors = {name: value.detach().cpu().contiguous() for name, value in (known | drawn).items()}
    state = {"steps": steps, "dense": optimisers.config.dense_optimiser, "scaler": optimisers.scaler.state_dict()}
    save_file(tensors, Path(folder) / FILE, metadata={"state": json.dumps(state)})


def carry(model: Path, optimisers: Optimisers) -> int:
    """Let optimisers over a model's weights go on from where its training stood, and random generators as well.

    Args:
        model: folder whose weights the parameters hold.
        optimisers: fresh ones.

    Returns:
        Steps taken so far; 0 where the folder does not say, and then nothing is changed.

    Raises:
        ModelError: they are of another kind.
    """
    file = Path(model) / FILE
    if not file.exists():
        return 0
    with safe_open(file, framework="pt") as stored:
        names = stored.keys()
        tensors = {name: stored.get_tensor(name) for name in names}
        state = json.loads(stored.metadata()["state"])
    if state["dense"] != optimisers.config.dense_optimiser:
        raise ModelError(
            f"{model} was trained with {state['dense']}, train.dense_optimiser is "
            f"{optimisers.config.dense_optimiser}: keep that one, or start anew with train.carry_optimisers=false"
        )
    drawn = {name: tensors.pop(name) for name in list(tensors) if name.startswith("rng.")}
    torch.set_rng_state(drawn["rng.cpu"])
    if "rng.cuda" in drawn and torch.cuda.is_available():
        torch.cuda.set_rng_state(drawn["rng.cuda"])
    with optimisers.averaged():  # as they were kept: the average in the model, the raw weights in its place
        optimisers.restore(tensors, state["scaler"])
    return int(state["steps"])
