"""What a training costs: FLOPs, the time of each phase, and the share of the machine's matmul peak (MFU)."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.batches import Batch
from models.ranking import RankingModel

PHASES = ("data", "forward", "backward", "optimiser")
BACKWARD = 2  # a backward pass holds two products for each one of the forward pass
COLOURS = ("#9a6700", "#1f6feb", "#d1242f", "#1a7f37")


def flops_per_sample(model: RankingModel, batch: Batch) -> int:
    """Multiply-adds of matrix products counted twice, by torch's counter, of one forward pass a candidate."""
    fused = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}  # torch's counter lacks it
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=fused) as counter:
        model(batch)
    return round(counter.get_total_flops() / batch.candidates)


def _attention_flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], *args: Any, **more: Any) -> int:
    """Of the shapes (B, H, n, e), (B, H, p, e) and (B, H, p, e): both products."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


def matmul_peak(device: torch.device, dtype: torch.dtype = torch.float32, repeats: int = 7) -> float:
    """FLOPs a second of the fastest of some square matrix products: what this device reaches here and now."""
    size = 8192 if device.type == "cuda" else 768
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = left @ right
    best = float("inf")
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def wait(device: torch.device | None) -> None:
    """Until a device has finished what it was given; a CPU has."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


class PhaseClock:
    """Adds the seconds of each phase to a dictionary, by the device's own clock.

    Work for CUDA is queued: events mark where a phase starts and ends, and nobody waits for them before `settle`. What
    the device idles while the CPU prepares a phase counts as that phase's.
    """

    def __init__(self, device: torch.device, seconds: dict[str, float]):
        self.device, self.seconds = device, seconds
        self._marked: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a block of work."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._marked.append((phase, start, end))
            return
        started = time.perf_counter()
        yield
        self._add(phase, time.perf_counter() - started)

    def settle(self) -> None:
        """Bring the dictionary up to date."""
        wait(self.device)
        for phase, start, end in self._marked:
            self._add(phase, start.elapsed_time(end) / 1000.0)
        self._marked.clear()

    def _add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


def speed(
    seconds: Mapping[str, float], samples: int, forward_flops: int, peak: float, processes: int
) -> dict[str, Any]:
    """Throughput and utilisation of so many samples.

    Args:
        seconds: of each phase, validation aside.
        samples: over all processes.
        forward_flops: of one sample; a recomputed forward pass does not count as work.
        peak: of one process's device, FLOPs a second.
        processes: that worked at the same time.
    """
    spent = sum(seconds.get(phase, 0.0) for phase in PHASES)
    passes = seconds.get("forward", 0.0) + seconds.get("backward", 0.0)
    work = (1 + BACKWARD) * forward_flops * samples / (peak * processes)
    return {
        "samples_per_second": round(samples / max(spent, 1e-9), 1),
        "matmul_peak_flops_per_second": round(peak),
        "mfu": work / max(spent, 1e-9),
        "mfu_of_passes": work / max(passes, 1e-9),
    }


def costs_html(report: Mapping[str, Any]) -> str:
    """The time split as one bar, and the throughput, for the page of a training."""
    seconds = {phase: report["seconds"].get(phase, 0.0) for phase in PHASES}
    total = max(sum(seconds.values()), 1e-9)
    bars = "".join(
        f'<span style="display:inline-block;width:{100 * value / total:.2f}%;background:{colour};height:18px"></span>'
        for value, colour in zip(seconds.values(), COLOURS, strict=True)
    )
    legend = ", ".join(
        f'<span style="color:{colour}">{escape(phase)}</span> {value:.2f} s ({value / total:.0%})'
        for (phase, value), colour in zip(seconds.items(), COLOURS, strict=True)
    )
    peak = report["matmul_peak_flops_per_second"]
    return (
        f'<h2>Where the time went</h2><div style="white-space:nowrap">{bars}</div><p>{legend}</p>'
        f"<p>{report['samples_per_second']:,.0f} samples a second on {escape(report['device'])}, "
        f"{report['processes']} process(es). The dense FLOPs are {report['mfu']:.1%} of a matmul peak of "
        f"{peak / 1e9:,.1f} GFLOP/s measured in this run, {report['mfu_of_passes']:.1%} of it during the forward and "
        f"backward passes.</p>"
    )
