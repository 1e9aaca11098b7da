"""A training in as many processes as there are devices, by `torch.distributed.run` where that is more than one.

`python -m torch.distributed.run … -m models.launch JOB` is each process; JOB is a folder with what is to be trained.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from models.data import Subset
from models.train import resolve_device, train
from uniscale.artifacts import read_json, write_json
from uniscale.config import Config
from uniscale.errors import ModelError, UniscaleError


def train_on_all(
    config: Config, samples: Path, out: Path, name: str, subset: Subset, work: Path, processes: int | None = None
) -> None:
    """`models.train.train` with a process a device of this machine; the rows of every batch are shared among them.

    Args:
        config: as for `train`, as are samples, out, name, subset and work.
        processes: how many; by default one for each CUDA device where `train.device` takes CUDA, else one. Next-batch
            evaluation keeps its predictions in order and takes one, and so does a process of `torchrun`.

    A SIGTERM to this process ends them first, and then it with exit code 143; call this in the main thread.

    Raises:
        ModelError: a process failed, with its message; and what `train` raises.
    """
    if processes is None:
        alone = "WORLD_SIZE" in os.environ or config.train.next_batch  # one of a launcher's processes, or in order
        cuda = not alone and resolve_device(config.train.device).type == "cuda"
        processes = torch.cuda.device_count() if cuda else 1
    if processes < 2:
        train(config, samples, out, name, subset, work)
        return
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch)
        paths = {"samples": str(samples), "out": str(out), "work": str(work)}
        write_json(job / "job.json", {"config": config.model_dump(), "name": name, "subset": subset, **paths})
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        code = _ended_with_us([sys.executable, "-m", *launcher, "-m", "models.launch", str(job)])
        if code:
            said = sorted(job.glob("error-*.txt"))
            why = said[0].read_text() if said else "see what it printed above (killed, or out of memory?)"
            raise ModelError(f"a training in {processes} processes ended with {code}: {why}")


def _ended_with_us(command: Sequence[str]) -> int:
    """Exit code of a command that is told to end, and waited for, when this process is."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with subprocess.Popen(command) as launcher:
            try:
                return launcher.wait()
            except BaseException:
                launcher.terminate()  # which `subprocess.run` kills: its workers would go on
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def main(folder: str) -> None:
    """One of the processes."""
    job = read_json(Path(folder) / "job.json")
    assert job["subset"] in get_args(Subset)
    samples, out, work = (Path(job[key]) for key in ("samples", "out", "work"))
    try:
        train(Config.model_validate(job["config"]), samples, out, job["name"], job["subset"], work)
    except UniscaleError as error:
        (Path(folder) / f"error-{os.environ['RANK']}.txt").write_text(str(error))
        raise


if __name__ == "__main__":
    main(sys.argv[1])
