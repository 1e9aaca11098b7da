"""OneTrans' system optimisations one by one (onetrans.txt 4.4, RQ3): time and peak memory, training and inference.

`python -m benchmarks.onetrans_efficiency --candidates 50 --behaviours 300 [--set model.onetrans.layers=6]`
`python -m benchmarks.onetrans_efficiency --candidates 50 --behaviours 1190 --paper --device cuda`

Each row changes one thing of an unoptimised OneTrans, as in the paper: no pyramid, a copy of the history for every
candidate, float32, on CUDA attention that stores its scores. Sharing stage I between the candidates of a request is the
list-wise feed; in inference its keys and values are known from an earlier request (`OneTransCache`). Training is a
forward and a backward pass. Time is the processor's, on CUDA until the device is done. Only ratios within one run mean
anything.

Shapes: C candidates of the request, L behaviours of its user.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.listwise import peak_bytes, rows_of, spec_of, vectors_of
from benchmarks.training import PAPER as SIZES
from models import attention
from models.batches import Batch, to_batch
from models.costs import wait
from models.onetrans_cache import OneTransCache
from models.ranking import RankingModel
from models.recompute import recompute_layers
from models.zoo import build_model
from uniscale.config import load_config

PAPER_SIZE = SIZES["onetrans"][1]
PAPER = {  # percent of runtime and memory in training, latency and memory in inference
    "+ Pyramid stack": (-28.7, -42.6, -8.4, -6.9),
    "+ Cross-request KV caching": (-30.2, -58.4, -29.6, -52.9),
    "+ FlashAttention": (-50.1, -58.9, -12.3, -11.6),
    "+ Mixed precision with recomputation": (-32.9, -49.0, -69.1, -30.0),
}
NOT_RUN = "needs CUDA; torch's fused CPU kernels serve every row"

Costs = tuple[float, float, float, float]  # seconds and bytes of training, of inference


def variants(candidates: int, behaviours: int, sets: list[str], repeats: int, device: torch.device) -> dict[str, Costs]:
    """Costs of the unoptimised form and of each change to it that this machine can measure."""
    plain, pyramid = (
        _model(behaviours, [*sets, f"model.onetrans.pyramid={kept}"], device) for kept in ("false", "true")
    )
    halved = _model(behaviours, [*sets, "model.onetrans.pyramid=false"], device)
    recompute_layers(halved.network)
    points, listed = (
        to_batch(rows_of(plain.spec, candidates, behaviours, point_wise), vectors_of()).to(device)
        for point_wise in (True, False)
    )
    cache = OneTransCache(plain)
    _, state = cache.score(listed)
    work = {
        "Unoptimised": (_training(plain, points), _inference(plain, points)),
        "+ Pyramid stack": (_training(pyramid, points), _inference(pyramid, points)),
        "+ Cross-request KV caching": (_training(plain, listed), lambda: cache.score(listed, state)),
        "+ FlashAttention": (_training(plain, points), _inference(plain, points)),
        "+ Mixed precision with recomputation": (
            _training(halved, points, half=True),
            _inference(plain, points, half=True),
        ),
    }
    if device.type == "cpu":
        del work["+ FlashAttention"]
    found = {}
    for name, (training, inference) in work.items():
        with nullcontext() if device.type == "cpu" or name == "+ FlashAttention" else _stored_scores():
            found[name] = _costs(training, inference, repeats, device)
    return found


@contextmanager
def _stored_scores() -> Iterator[None]:
    """Attention on CUDA by plain products and a softmax."""
    with sdpa_kernel(SDPBackend.MATH), patch.object(attention, "FEW", sys.maxsize):
        yield


def table(found: Mapping[str, Costs]) -> str:
    """Absolute costs of the unoptimised form, the changes of the others in percent beside the paper's."""
    base = found["Unoptimised"]
    lines = ["| variant | training time | training memory | inference time | inference memory |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    lines.append(
        f"| Unoptimised | {1e3 * base[0]:.0f} ms | {base[1] / 2**20:.1f} MiB | {1e3 * base[2]:.0f} ms | "
        f"{base[3] / 2**20:.1f} MiB |"
    )
    for name, paper in PAPER.items():
        if name not in found:
            lines.append(f"| {name} | not run: {NOT_RUN} | | | |")
            continue
        pairs = zip(found[name], base, paper, strict=True)
        cells = (f"{100 * (own / first - 1):+.1f} % (paper {said:+.1f} %)" for own, first, said in pairs)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _model(behaviours: int, sets: list[str], device: torch.device) -> RankingModel:
    config = load_config(overrides=["model.table_rows=4096", *sets]).model
    return build_model("onetrans", spec_of(behaviours), config, seed=0).to(device).eval()


def _training(model: RankingModel, batch: Batch, half: bool = False) -> Callable[[], object]:
    def work() -> None:
        with torch.autocast(batch.offsets.device.type, torch.bfloat16) if half else nullcontext():
            logits = model(batch)
        logits.float().sum().backward()
        model.zero_grad(set_to_none=True)

    return work


def _inference(model: RankingModel, batch: Batch, half: bool = False) -> Callable[[], object]:
    def work() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(batch.offsets.device.type, torch.bfloat16) if half else nullcontext(),
        ):
            model.score(batch)

    return work


def _costs(
    training: Callable[[], object], inference: Callable[[], object], repeats: int, device: torch.device
) -> Costs:
    found = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for work in (training, inference):
        work()
        seconds = []
        for _ in range(repeats):
            wait(device)
            started = clock()
            work()
            wait(device)
            seconds.append(clock() - started)
        gc.collect()
        found += [statistics.median(seconds), float(peak_bytes(work, device))]
    return found[0], found[1], found[2], found[3]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--behaviours", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--paper", action="store_true", help="the size of OneTrans-S")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--set", action="append", default=[], metavar="model.key=value", help="as in `uniscale run`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = [*(f"model.onetrans.{size}" for size in PAPER_SIZE if options.paper), *options.set]
    device = torch.device(options.device)
    print(table(variants(options.candidates, options.behaviours, sets, options.repeats, device)))


if __name__ == "__main__":
    main()
