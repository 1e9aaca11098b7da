"""Starts the training that the retraining policy asks for: its logs are kept, its configuration beside them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from uniscale.artifacts import atomic_folder, content_hash
from uniscale.errors import UniscaleError

REJECTED = 3  # a training whose candidate lost is a training all the same


def start_training(config: str, logs: Path, kept: Path, verb: Sequence[str]) -> Path:
    """Keep the logs in a folder named by their content and run a verb of the command line on them.

    Args:
        config: the whole configuration as JSON; `data` is made to read the kept logs.
        logs: the log folder to train on.
        kept: folder of such log folders, which outlives the step.
        verb: words after `uniscale`, `{config}` standing for the file of the configuration: `run --config {config}`.

    Returns:
        The kept log folder.

    Raises:
        UniscaleError: the verb failed; its own output says why.
    """
    folder = Path(kept) / content_hash(Path(logs))
    if not folder.exists():
        with atomic_folder(folder) as scratch:
            shutil.copytree(logs, scratch, dirs_exist_ok=True)
    chosen = json.loads(config)
    chosen["data"] |= {"source": "logs", "input": str(folder.resolve())}
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(chosen, indent=1))  # JSON is YAML
    command = [sys.executable, "-m", "uniscale.cli", *(word.replace("{config}", str(file)) for word in verb)]
    print(f"start: uniscale {' '.join(command[3:])}", flush=True)
    done = subprocess.run(command)
    if done.returncode not in (0, REJECTED):
        raise UniscaleError(f"uniscale {' '.join(command[3:])} ended with {done.returncode}: its output above says why")
    return folder
