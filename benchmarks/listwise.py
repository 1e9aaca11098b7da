"""List-wise against point-wise: one model, one request, fed once as a list and once as a request a candidate.

`python -m benchmarks.listwise --models onetrans,hhsft --candidates 10,100,500 --behaviours 50,300,1000 [--train]`

List-wise is the product's form: C candidates and one history. Point-wise is the same request taken apart: C requests of
one candidate, each with its own copy of the history. Both give the same scores, which is checked. The time is the
median of some repeats of the forward pass (`--train`: forward and backward); the memory is the highest sum of live
allocations during it, inputs included. Only ratios within one run mean anything.

Shapes: C candidates of the request, L behaviours of its user.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from models.batches import Batch, to_batch
from models.ranking import RankingModel
from models.rows import ItemVectors, Rows
from models.zoo import ZOO, build_model
from uniscale.config import load_config
from uniscale.hashing import hash_many
from uniscale.samples import Feature, SampleSpec

ITEMS, CONTENT_DIM, TEXT_DIM = 2_000, 32, 32
EVENT_TYPES = ("click", "cart", "favourite", "purchase")


def spec_of(behaviours: int) -> SampleSpec:
    """What the samples of a marketplace offer, with histories of a given length."""
    return SampleSpec(
        features=(
            Feature("user_id_hash", "user", "id", "request", "user"),
            Feature("user_clicks_7d", "user", "count", "request"),
            Feature("query_hash", "query", "id", "request", "query"),
            Feature("context_device", "context", "id", "request", "device"),
            Feature("item_hash", "item", "id", "candidate", "item"),
            Feature("item_category_1", "item", "id", "candidate", "category_1"),
            Feature("item_price", "item", "count", "candidate"),
            Feature("behaviour_item", "behaviour", "id", "behaviour", "item"),
            Feature("behaviour_category_1", "behaviour", "id", "behaviour", "category_1"),
            Feature("behaviour_type", "behaviour", "id", "behaviour", "behaviour_type"),
        ),
        domains=("search", "recommendation", "ads"),
        scenarios=("keyword", "home_feed"),
        tasks=("click", "conversion"),
        content_dim=CONTENT_DIM,
        text_dim=TEXT_DIM,
        max_behaviours=behaviours,
    )


def rows_of(spec: SampleSpec, candidates: int, behaviours: int, point_wise: bool, requests: int = 1) -> Rows:
    """Random requests of C candidates each, the same in both feeds: as they are, or each candidate as a request."""
    rng = np.random.default_rng(0)
    copies = candidates if point_wise else 1
    of_request = {
        "user_id_hash": rng.integers(1, 10**6, requests),
        "user_clicks_7d": rng.poisson(5, requests),
        "query_hash": rng.integers(1, 10**6, requests),
        "context_device": rng.integers(1, 4, requests),
        "query_text": rng.normal(size=(requests, TEXT_DIM)),
        "domain_index": np.arange(requests) % len(spec.domains),
        "scenarios": np.tile([1.0, 0.0], (requests, 1)),
        "ts": np.full(requests, 10**9),
    }
    seen = rng.integers(1, ITEMS, (requests, behaviours))
    of_behaviour = {
        "behaviour_item": seen,
        "behaviour_category_1": seen % 20 + 1,
        "behaviour_type": hash_many(EVENT_TYPES)[rng.integers(0, len(EVENT_TYPES), seen.shape)],
        "behaviour_index": seen,
        "behaviour_ts": 10**9 - np.sort(rng.integers(1, 10**7, seen.shape))[:, ::-1],
    }
    item = rng.integers(1, ITEMS, requests * candidates)
    columns = {name: column.repeat(copies, axis=0) for name, column in of_request.items()}
    columns |= {name: column.repeat(copies, axis=0).ravel() for name, column in of_behaviour.items()}
    columns |= {"item_hash": item, "item_category_1": item % 20 + 1, "item_price": rng.gamma(2, 20, len(item))}
    columns |= {"item": item}
    each = 1 if point_wise else candidates
    return Rows.of(spec, columns, np.arange(0, len(item) + 1, each), np.arange(requests * copies + 1) * behaviours)


def vectors_of() -> ItemVectors:
    """Random frozen vectors of all items."""
    rng = np.random.default_rng(1)
    content, text = (rng.normal(size=(ITEMS, width)).astype(np.float32) for width in (CONTENT_DIM, TEXT_DIM))
    return ItemVectors(content, text)


def peak_bytes(work: Callable[[], object], device: torch.device | None = None) -> int:
    """Highest sum of what is allocated and not yet freed while some work runs, beyond what was before it."""
    if device is not None and device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        work()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes.sort(key=lambda change: change.start_ns())
    live = np.cumsum([change.nbytes() for change in changes])
    return int(live.max(initial=0))


def size_of(batch: Batch) -> int:
    """Bytes of a batch."""
    tensors: Iterator[Tensor] = (getattr(batch, f.name) for f in fields(batch))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(model: RankingModel, batch: Batch, train: bool, repeats: int) -> tuple[float, int, Tensor]:
    """Median seconds of a pass, its peak bytes, and its logits (N, T)."""

    def work() -> Tensor:
        if not train:
            with torch.inference_mode():
                return model(batch)
        logits: Tensor = model(batch)
        logits.sum().backward()
        model.zero_grad(set_to_none=True)
        return logits.detach()

    logits = work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    gc.collect()
    return statistics.median(seconds), size_of(batch) + peak_bytes(work), logits


def compare(name: str, candidates: int, behaviours: int, train: bool, repeats: int, sets: Sequence[str]) -> str:
    """One line of the table: a model at one size in both feeds.

    Raises:
        AssertionError: the feeds score differently, so that their costs could not be compared.
    """
    spec = spec_of(behaviours)
    config = load_config(overrides=["model.table_rows=4096", *sets]).model
    model, vectors = build_model(name, spec, config, seed=0).eval(), vectors_of()
    found = []
    for point_wise in (False, True):
        batch = to_batch(rows_of(spec, candidates, behaviours, point_wise), vectors)
        found.append(measure(model, batch, train, repeats))
    (seconds, memory, logits), (slow, large, same) = found
    torch.testing.assert_close(logits, same, rtol=1e-3, atol=1e-3)
    cells = (f"{1e3 * seconds:.1f}", f"{1e3 * slow:.1f}", f"{slow / seconds:.1f}")
    memories = (f"{memory / 2**20:.1f}", f"{large / 2**20:.1f}", f"{large / memory:.1f}")
    return f"| {name} | {candidates} | {behaviours} | {' | '.join((*cells, *memories))} |"


def main() -> None:
    """Print the table as Markdown, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="onetrans,mtgr,hhsft", help="entries of the zoo, or all")
    parser.add_argument("--candidates", default="10,100")
    parser.add_argument("--behaviours", default="50,300")
    parser.add_argument("--train", action="store_true", help="forward and backward instead of forward alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="model.key=value", help="as in `uniscale run`")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = list(ZOO) if options.models == "all" else options.models.split(",")
    print("| model | candidates | behaviours | list ms | point ms | ratio | list MiB | point MiB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in names:
        for candidates in map(int, options.candidates.split(",")):
            for behaviours in map(int, options.behaviours.split(",")):
                line = compare(name, candidates, behaviours, options.train, options.repeats, options.set)
                print(line, flush=True)


if __name__ == "__main__":
    main()
