"""Training steps of every entry against this CPU's matmul peak, and the cost of an embedding update by table size.

`python -m benchmarks.training --models all [--candidates 200] [--behaviours 32] [--set model.est.dim=128]`

A step is forward, backward and both optimisers on one batch of random requests. Its FLOPs are three forward passes by
torch's counter; the peak is a square float32 product measured before each entry. An update is row-wise Adagrad on the
gradient of as many look-ups whatever the table's size. All times are medians; only ratios within one run mean anything.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.listwise import rows_of, spec_of, vectors_of
from models.batches import to_batch
from models.costs import BACKWARD, flops_per_sample, matmul_peak
from models.embeddings import RowwiseAdagrad
from models.optimisers import Optimisers, task_losses
from models.zoo import ZOO, build_model
from uniscale.config import load_config

CPU = torch.device("cpu")


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall seconds of some work, after one call that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def step_line(name: str, candidates: int, behaviours: int, repeats: int, sets: Sequence[str]) -> str:
    """A row of the first table."""
    spec = spec_of(behaviours)
    config = load_config(overrides=["model.table_rows=4096", *sets])
    model = build_model(name, spec, config.model, seed=0)
    batch = to_batch(rows_of(spec, candidates, behaviours, point_wise=False), vectors_of())
    batch.labels.copy_((torch.rand(batch.labels.shape) < 0.1).float())
    batch.weights.fill_(1.0)
    optimisers = Optimisers(model, config.train, CPU, half=False)

    def step() -> None:
        optimisers.backward(task_losses(model(batch), batch).sum())
        optimisers.step(1000)

    peak = matmul_peak(CPU)
    seconds = median_seconds(step, repeats)
    flops = (1 + BACKWARD) * flops_per_sample(model, batch) * candidates
    share = flops / seconds / peak
    return f"| {name} | {1e3 * seconds:.1f} | {flops / 1e6:,.0f} | {flops / seconds / 1e9:.1f} | {share:.0%} |"


def update_line(rows: int, lookups: int, dim: int, repeats: int) -> str:
    """A row of the second table."""
    table = torch.nn.Parameter(torch.randn(rows, dim))
    optimiser = RowwiseAdagrad([table], lr=0.01)
    wanted = torch.from_numpy(np.random.default_rng(0).integers(1, rows, lookups))

    def update() -> None:
        F.embedding(wanted, table, sparse=True).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return f"| {rows:,} | {len(wanted.unique()):,} | {1e3 * median_seconds(update, repeats):.2f} |"


def main() -> None:
    """Print both tables as Markdown, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="all", help="entries of the zoo, or all")
    parser.add_argument("--candidates", type=int, default=200, help="of one request, which is the batch")
    parser.add_argument("--behaviours", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lookups", type=int, default=40_000)
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes of the table")
    parser.add_argument("--set", action="append", default=[], metavar="model.key=value", help="as in `uniscale run`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | step ms | MFLOPs | GFLOP/s | share of the peak |\n| --- | ---: | ---: | ---: | ---: |", flush=True)
    for name in list(ZOO) if options.models == "all" else options.models.split(","):
        print(step_line(name, options.candidates, options.behaviours, options.repeats, options.set), flush=True)
    print("\n| table rows | distinct rows of the update | ms |\n| ---: | ---: | ---: |", flush=True)
    for rows in map(int, options.rows.split(",")):
        print(update_line(rows, options.lookups, 16, options.repeats), flush=True)


if __name__ == "__main__":
    main()
