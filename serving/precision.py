"""The fastest arithmetic that keeps a model's scores, by measurement on the machine at hand when a model is loaded.

What is fast depends on the processor: this code has seen bfloat16 at a tenth of float32's speed on CPUs without matrix
instructions for it. On a CPU the scoring thread's own time counts, not the clock on the wall: other work on the machine
must not make a reloaded model, or another worker's, compute in another precision and score differently. For the same
reason a precision is taken only where it is clearly faster, and every score of the probe stays within the tolerance.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from models.batches import Batch
from serving.served_model import ServedModel

LOWER = {"cpu": (torch.bfloat16, torch.float16), "cuda": (torch.float16, torch.bfloat16)}
CLOCK = {"cpu": time.thread_time, "cuda": time.perf_counter}
REPEATS = 3  # the fastest counts
CLEARLY = {"cpu": 1.5, "cuda": 1.1}  # times as fast as float32; recorded graphs take the same time again and again
HOPELESS = 4.0  # times as slow on the first run: not worth repeating

T = TypeVar("T")


def choose(model: ServedModel, batch: Batch, tolerance: float) -> None:
    """Set a model's precision, and what each one took, from a batch like those it will see.

    Args:
        model: computes in float32 yet.
        batch: what to measure with.
        tolerance: largest difference of a score from float32's.
    """
    expected = model.score(batch)
    measured, chosen = {"float32": _milliseconds(model, batch)}, torch.float32
    best = measured["float32"]
    for precision in LOWER[model.device.type]:
        model.precision = precision
        try:
            if model.device.type == "cuda":
                model.score(batch)  # the first request of a shape is recorded
            first, worst = _timed(model, lambda: float((model.score(batch) - expected).abs().max()))
        except RuntimeError:  # a kernel that this device lacks in this precision
            continue
        needed = first if first > HOPELESS * best else _milliseconds(model, batch)
        measured[str(precision).removeprefix("torch.")] = needed
        if worst <= tolerance and needed * CLEARLY[model.device.type] <= measured["float32"] and needed < best:
            best, chosen = needed, precision
    model.precision, model.measured = chosen, {name: round(needed, 3) for name, needed in measured.items()}
    model.settle()


def _milliseconds(model: ServedModel, batch: Batch) -> float:
    return min(_timed(model, lambda: model.score(batch))[0] for _ in range(REPEATS))


def _timed(model: ServedModel, work: Callable[[], T]) -> tuple[float, T]:
    clock = CLOCK[model.device.type]
    started = clock()
    result = work()  # scores come back to the CPU, so a device has finished
    return 1000 * (clock() - started), result
