"""Latency of a served model on CUDA: recorded graphs against the same model without them, in each precision.

`python -m benchmarks.cuda_graphs [--candidates 200,500] [--repeats 40]`

Models of the papers' sizes (`benchmarks.training.PAPER`) score one request as `serving.served_model` does, tensors from
and scores to the CPU included; HTTP and the look-up of features come on top. Wall milliseconds of one thread, the
median and the slowest; only ratios within one run mean anything.
"""

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.listwise import rows_of, spec_of, vectors_of
from benchmarks.training import PAPER, seconds_of
from models.batches import Batch, to_batch
from models.ranking import RankingModel
from models.zoo import build_model
from serving.served_model import ServedModel, scored
from uniscale.config import load_config

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
WARM_UP = 5


def main() -> None:
    """Print the table as Markdown, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", default="200,500", help="of the request")
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        parser.error("no CUDA device here: graphs are CUDA's")
    print("| model | candidates | precision | without graphs p50, slowest | graphs p50, slowest | score difference |")
    print("| --- | ---: | --- | ---: | ---: | ---: |", flush=True)
    for name, (behaviours, sizes) in PAPER.items():
        spec, sets = spec_of(behaviours), [f"model.{name}.{size}" for size in sizes]
        config = load_config(overrides=["model.table_rows=4096", *sets]).model
        model = build_model(name, spec, config, seed=0).eval().search_export()
        served = ServedModel(model, torch.device("cuda"))
        for candidates in map(int, options.candidates.split(",")):
            batch = to_batch(rows_of(spec, candidates, behaviours, point_wise=False), vectors_of())
            served.precision = torch.float32
            exact = served.score(batch)
            for precision in PRECISIONS:
                served.precision = precision
                worst = float((served.score(batch) - exact).abs().max())
                plain = _timed(lambda: _plain(model, batch, precision), options.repeats)  # noqa: B023
                graphs = _timed(lambda: served.score(batch), options.repeats)  # noqa: B023
                cells = (f"{statistics.median(taken):.2f}, {max(taken):.2f}" for taken in (plain, graphs))
                kind = str(precision).removeprefix("torch.")
                print(f"| {name} | {candidates} | {kind} | {' | '.join(cells)} | {worst:.0e} |", flush=True)


def _plain(model: RankingModel, batch: Batch, precision: torch.dtype) -> torch.Tensor:
    return scored(model, "cuda", precision, batch.to("cuda")).float().cpu()


def _timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each repeat."""
    return [1000 * seconds_of(work) for _ in range(WARM_UP + repeats)][WARM_UP:]


if __name__ == "__main__":
    main()
