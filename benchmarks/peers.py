"""DCNv2 and AutoInt against fuxictr and torch-rechub: samples a CPU second of one epoch, loading included.

`python -m benchmarks.peers [--python PEER_PYTHON] [--samples 81920] [--rows 5000000] [--batch 4096] [--slates 1,10]`

PEER_PYTHON is the interpreter of an environment with fuxictr 2.3.10 and torch-rechub 0.9.0; without it only ours runs.
The data are random ids of ten fields, four of the request and six of the candidate, which share the embedding rows
evenly. Ours reads them as list-wise Parquet, whose requests have one candidate (point-wise, as the peers see them) or
several; a peer reads the last of these, flat, from an .npz. All have embeddings of width 16, two full-rank cross
layers beside an MLP of 128 and 64, or two interacting layers of two heads; one thread, float32.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.loader import write
from models.data import Position, Reader, prefetch, read_rows
from models.optimisers import Optimisers, task_losses
from models.zoo import build_model
from uniscale.config import load_config
from uniscale.samples import Feature, SampleSpec

REQUEST, CANDIDATE = 4, 6  # fields
OPTIONS: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "hidden": [128, 64]}
MODELS, PEERS = ("dcnv2", "autoint"), ("fuxictr", "torch_rechub")


def spec_of() -> SampleSpec:
    """Ten id fields with a table each, and no history."""
    request = (Feature(f"user_{i}", "user", "id", "request", f"user_{i}") for i in range(REQUEST))
    candidate = (Feature(f"item_{i}", "item", "id", "candidate", f"item_{i}") for i in range(CANDIDATE))
    return SampleSpec((*request, *candidate), ("search",), ("keyword",), ("click",), 0, 0, 1)


def flatten(samples: Path, path: Path) -> dict[str, int]:
    """Write a samples folder's rows flat, a column a field and the label; returns the largest id of each field."""
    reader = Reader(samples, "train", "search", 1, seed=0)
    rows = read_rows(reader.files, reader.spec, "search")
    names = [[f.name for f in reader.spec.select(level)] for level in ("request", "candidate")]
    of_request = dict(zip(names[0], rows.request_ids[rows.request_of].T, strict=True))
    columns = of_request | dict(zip(names[1], rows.candidate_ids.T, strict=True))
    np.savez(path, click=rows.labels[:, 0], **columns)
    return {name: int(column.max()) for name, column in columns.items()}


def ours(name: str, samples: Path, table_rows: int, batch: int) -> dict[str, float]:
    """One epoch of a training step's parts, without validation and checkpoints."""
    settings = {
        "embedding_dim": OPTIONS["dim"],
        "table_rows": table_rows,
        "dcnv2.rank": 0,
        "autoint.dim": OPTIONS["dim"],
    }
    config = load_config(overrides=[f"model.{key}={value}" for key, value in settings.items()])
    model = build_model(name, SampleSpec.load(samples), config.model, seed=0).train()
    optimisers = Optimisers(model, config.train, torch.device("cpu"), half=False)
    start, done = time.process_time(), 0
    reader = Reader(samples, "train", "search", batch, seed=0)
    for step, (_, part) in enumerate(prefetch(reader.batches(Position(0, 0, 0)))):
        loss = task_losses(model(part), part).sum()
        assert loss.isfinite()
        optimisers.backward(loss)
        optimisers.step(step)
        done += part.candidates
    seconds, embedded = time.process_time() - start, model.inputs.tables.weight.numel()
    dense = sum(p.numel() for p in model.parameters()) - embedded
    return {"samples": done, "seconds": seconds, "dense": dense, "embedded": embedded}


def theirs(python: str, package: str, name: str, path: Path, sizes: dict[str, int], batch: int) -> dict[str, float]:
    """One epoch of a peer, in a process of its own."""
    script = Path(__file__).with_name("peer_trainers.py")
    arguments = [package, name, str(path), json.dumps(sizes), json.dumps(OPTIONS | {"batch": batch})]
    done = subprocess.run([python, str(script), *arguments], capture_output=True, text=True, cwd=path.parent)
    if done.returncode:
        raise RuntimeError(f"{python} {script} {package} {name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Print the table as Markdown, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="", help="interpreter with the peers; without it only ours runs")
    parser.add_argument("--samples", type=int, default=81_920)
    parser.add_argument("--rows", type=int, default=5_000_000, help="embedding rows of all fields together")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--slates", default="1,10", help="candidates a request, of ours")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table_rows = options.rows // (REQUEST + CANDIDATE)
    print(
        "| model | system | dense parameters | CPU seconds | samples a CPU second |\n| --- | --- | ---: | ---: | ---: |"
    )

    def line(name: str, system: str, took: dict[str, float]) -> None:
        rate = took["samples"] / took["seconds"]
        print(f"| {name} | {system} | {took['dense']:,.0f} | {took['seconds']:.1f} | {rate:,.0f} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for slate in map(int, options.slates.split(",")):
            samples = write(Path(folder) / f"slate-{slate}", spec_of(), options.samples, 0, slate, table_rows)
            for name in MODELS:
                line(name, f"ours, {slate} a request", ours(name, samples, table_rows, options.batch))
        if options.python:
            flat = Path(folder) / "rows.npz"
            flatten(samples, flat)
            sizes = dict.fromkeys((f.name for f in spec_of().features), table_rows)
            for name in MODELS:
                for package in PEERS:
                    line(name, package, theirs(options.python, package, name, flat, sizes, options.batch))


if __name__ == "__main__":
    main()
