"""Training steps of every entry against the device's matmul peak, and the cost of an embedding update by table size.

`python -m benchmarks.training --models all [--candidates 200] [--behaviours 32] [--set model.est.dim=128]`
`python -m benchmarks.training --paper --requests 16 --candidates 64 [--device cuda --precision bfloat16]`

A step is forward, backward and both optimisers on one batch of random requests, copied to the device beforehand. Its
FLOPs are three forward passes by torch's counter; the peak is a square product in the same precision, measured before
and after each repeat, as machines change their pace. `--paper` takes the sizes that the papers train (`PAPER`). An
update is row-wise Adagrad on the gradient of as many look-ups whatever the table's size. All figures are medians; only
ratios within one run mean anything.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.listwise import rows_of, spec_of, vectors_of
from models.batches import to_batch
from models.costs import BACKWARD, flops_per_sample, matmul_peak, wait
from models.embeddings import RowwiseAdagrad
from models.optimisers import Optimisers, task_losses
from models.zoo import ZOO, build_model
from uniscale.config import load_config

CPU = torch.device("cpu")
PAPER = {  # sizes of UniScale 4.4, OneTrans 4.1 and EST 6.1; a head of HHSFT is 206 wide
    "hhsft": (100, ["hfa_dim=1648", "hfa_heads=8", "gfa_dim=256", "gfa_tokens=8", "gfa_heads=8", "expert_dim=256"]),
    "onetrans": (1190, ["layers=6", "dim=256", "heads=4", "ns_tokens=11", "ffn_multiple=4", "pyramid_multiple=32"]),
    "est": (1000, ["layers=6", "dim=128", "heads=4", "user_behaviours=300", "candidate_behaviours=50"]),
}


@dataclass(frozen=True)
class Setting:
    """What a step is measured on."""

    candidates: int  # of each request
    behaviours: int
    requests: int = 1
    device: torch.device = CPU
    precision: str = "float32"
    compiled: bool = False
    repeats: int = 5
    sets: tuple[str, ...] = ()


def seconds_of(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall seconds of some work."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def step_of(name: str, on: Setting) -> tuple[Callable[[], object], int]:
    """A training step of an entry, and its FLOPs."""
    spec = spec_of(on.behaviours)
    config = load_config(overrides=["model.table_rows=4096", f"train.precision={on.precision}", *on.sets])
    model = build_model(name, spec, config.model, seed=0).to(on.device)
    batch = to_batch(rows_of(spec, on.candidates, on.behaviours, point_wise=False, requests=on.requests), vectors_of())
    batch.labels.copy_((torch.rand(batch.labels.shape) < 0.1).float())
    batch.weights.fill_(1.0)
    batch = batch.to(on.device)
    optimisers = Optimisers(model, config.train, on.device, half=on.precision == "float16")
    flops = (1 + BACKWARD) * flops_per_sample(model, batch) * batch.candidates
    if on.compiled:
        model.compile(dynamic=True)
    lower = on.precision != "float32"

    def step() -> None:
        with torch.autocast(on.device.type, getattr(torch, on.precision), enabled=lower):
            logits = model(batch)
        optimisers.backward(task_losses(logits, batch).sum())
        optimisers.step(1000)

    return step, flops


def step_line(name: str, on: Setting) -> str:
    """A row of the first table."""
    step, flops = step_of(name, on)
    step()
    seconds, shares = [], []
    before = matmul_peak(on.device, getattr(torch, on.precision))
    for _ in range(on.repeats):
        seconds.append(seconds_of(step, on.device))
        after = matmul_peak(on.device, getattr(torch, on.precision))
        shares.append(flops / seconds[-1] / ((before + after) / 2))
        before = after
    took = statistics.median(seconds)
    rate = f"{on.requests * on.candidates / took:,.0f}"
    return (
        f"| {name} | {1e3 * took:.1f} | {rate} | {flops / 1e6:,.0f} | {flops / took / 1e9:,.1f} | "
        f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%}) |"
    )


def update_line(rows: int, lookups: int, dim: int, repeats: int, device: torch.device | None = None) -> str:
    """A row of the second table."""
    table = torch.nn.Parameter(torch.randn(rows, dim, device=device))
    optimiser = RowwiseAdagrad([table], lr=0.01)
    wanted = torch.from_numpy(np.random.default_rng(0).integers(1, rows, lookups)).to(table.device)

    def update() -> None:
        F.embedding(wanted, table, sparse=True).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    update()
    took = statistics.median(seconds_of(update, table.device) for _ in range(repeats))
    return f"| {rows:,} | {len(wanted.unique()):,} | {1e3 * took:.2f} |"


def main() -> None:
    """Print both tables as Markdown, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="all", help="entries of the zoo, or all")
    parser.add_argument("--paper", action="store_true", help="the papers' sizes, of the entries that have one here")
    parser.add_argument("--candidates", type=int, default=200, help="of each request")
    parser.add_argument("--behaviours", type=int, default=32)
    parser.add_argument("--requests", type=int, default=1, help="in the batch")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lookups", type=int, default=40_000)
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes of the table; none leaves them out")
    parser.add_argument("--set", action="append", default=[], metavar="model.key=value", help="as in `uniscale run`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | step ms | samples/s | MFLOPs | GFLOP/s | share of the peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    entries = PAPER if options.paper else ZOO
    for name in list(entries) if options.models == "all" else options.models.split(","):
        behaviours, sizes = PAPER[name] if options.paper else (options.behaviours, [])
        on = Setting(
            options.candidates,
            behaviours,
            options.requests,
            torch.device(options.device),
            options.precision,
            options.compile,
            options.repeats,
            (*(f"model.{name}.{size}" for size in sizes), *options.set),
        )
        print(step_line(name, on), flush=True)
    sizes_of_tables = [int(rows) for rows in options.rows.split(",") if rows != "none"]
    if sizes_of_tables:
        print("\n| table rows | distinct rows of the update | ms |\n| ---: | ---: | ---: |", flush=True)
    for rows in sizes_of_tables:
        print(update_line(rows, options.lookups, 16, options.repeats, torch.device(options.device)), flush=True)


if __name__ == "__main__":
    main()
