"""What OneTrans saves by sharing: within a request, and between the requests of a returning user.

`python -m benchmarks.request_sharing [--set model.onetrans.tokenizer=group_wise] [--plot cost.html]`

At d 256, 6 blocks, 512 behaviours and 200 candidates by default; prints one line of JSON a measurement:

- point by point, every candidate is a request with its own copy of the history; request-level, the list shares it;
- a returning user's state is looked up as the service does (`serving.served_model`): nothing new (hit), a few new
  behaviours (extended), or new ones in a history that is full, whose window slides (full);
- memory of a user's state, and what keeping it costs in score differences, in float32 and in float16;
- time against behaviours and against candidates, which `--plot` draws.

Times are medians of the scoring thread's own time on one core, which other work on the machine does not lengthen as it
does the clock on the wall; only ratios within one run mean anything.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.listwise import rows_of, spec_of, vectors_of
from models.batches import Batch, to_batch
from models.curves import page
from models.onetrans_cache import OneTransCache
from models.ranking import RankingModel
from models.rows import Rows
from models.zoo import build_model
from serving.engine import events_of
from serving.served_model import ServedModel
from serving.user_states import History, UserStates
from uniscale.config import load_config

SETTINGS = ["model.table_rows=4096", "model.onetrans.dim=256", "model.onetrans.layers=6", "model.onetrans.heads=4"]
BUDGET_BYTES = 1 << 30
POINTS = 10  # candidates of a point-wise batch, each with its own history
SWEPT_BEHAVIOURS, SWEPT_CANDIDATES = (64, 128, 256, 512, 1024), (50, 100, 200, 400)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--behaviours", type=int, default=512)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--new", type=int, default=2, help="behaviours between two requests of a returning user")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--set", action="append", default=[], metavar="model.key=value", help="as in `uniscale run`")
    parser.add_argument("--plot", type=Path, help="HTML file for the sweeps; they are left out without it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(within(options)), flush=True)
    for half in (False, True):
        print(json.dumps(between(options, half)), flush=True)
    if options.plot:
        options.plot.write_text(swept(options))


def within(options: argparse.Namespace) -> dict[str, Any]:
    """One request's candidates as a list, and point by point."""
    spec, vectors = spec_of(options.behaviours), vectors_of()
    model = _model(options, options.behaviours)
    rows = rows_of(spec, options.candidates, options.behaviours, point_wise=True)
    shares = np.array_split(np.arange(options.candidates), -(-options.candidates // POINTS))
    points = [to_batch(rows.take(share), vectors) for share in shares]
    listed = to_batch(rows_of(spec, options.candidates, options.behaviours, point_wise=False), vectors)
    model.score(listed)
    one = _median(lambda: model.score(listed), options.repeats)
    started = time.thread_time()
    apart = torch.cat([model.score(batch) for batch in points])
    each = 1000 * (time.thread_time() - started)
    return {
        "measure": "within a request",
        "point_by_point_ms": each,
        "request_level_ms": one,
        "ratio": each / one,
        "largest_difference": float((apart - model.score(listed)).abs().max()),
    }


def between(options: argparse.Namespace, half: bool) -> dict[str, Any]:
    """A returning user's requests, their histories below the limit and at it."""
    new, length = options.new, options.behaviours
    ways: dict[str, list[float]] = {"uncached": [], "hit": [], "extended": [], "full": []}
    worst, correlation, state_bytes = 0.0, 1.0, 0
    for full in (False, True):
        limit = length if full else length + new
        found: list[str] = []
        states = UserStates(BUDGET_BYTES)
        model = ServedModel(_model(options, limit), states=states, half=half, found=found.append)
        for user in range(options.repeats + 1):
            rows = rows_of(spec_of(limit), options.candidates, length + new, point_wise=False)
            (before, old), (after, now) = (
                _asked(rows, f"u{user}", first, last)
                for first, last in ((0, length), (new if full else 0, length + new))
            )
            first_visit, _ = _timed(lambda: model.score(after))  # noqa: B023
            model.score(before, old)
            second, scores = _timed(lambda: model.score(after, now))  # noqa: B023
            third, _ = _timed(lambda: model.score(after, now))  # noqa: B023
            assert found[-3:] == ["miss", "extended", "hit"]
            if user:  # the first one warms up
                ways["full" if full else "extended"].append(second)
                if not full:
                    ways["uncached"].append(first_visit)
                    ways["hit"].append(third)
            expected = model.score(after)
            worst = max(worst, float((scores - expected).abs().max()))
            correlation = min(correlation, float(spearmanr(scores[:, 0].numpy(), expected[:, 0].numpy()).statistic))
        state_bytes = states.size_bytes // len(states)
    p50 = {name: statistics.median(taken) for name, taken in ways.items()}
    return {
        "measure": "between requests",
        "state": "float16" if half else "float32",
        "p50_ms": p50,
        "saved": {name: 1 - p50[name] / p50["uncached"] for name in ("hit", "extended", "full")},
        "mib_a_user": state_bytes / 2**20,
        "largest_difference": worst,
        "lowest_rank_correlation": correlation,
    }


def swept(options: argparse.Namespace) -> str:
    """A page with time against behaviours and against candidates; the points are printed too."""
    sizes = [(length, options.candidates) for length in SWEPT_BEHAVIOURS]
    sizes += [(options.behaviours, count) for count in SWEPT_CANDIDATES]
    points = []
    for length, count in sizes:
        spec = spec_of(length)
        cache = OneTransCache(_model(options, length))
        batch = to_batch(rows_of(spec, count, length, point_wise=False), vectors_of())
        state = cache.score(batch)[1]
        point = {
            "measure": "cost",
            "behaviours": length,
            "candidates": count,
            "all_ms": _median(lambda: cache.score(batch), options.repeats),  # noqa: B023
            "returning_ms": _median(lambda: cache.score(batch, state), options.repeats),  # noqa: B023
            "mib_a_user": state.size_bytes / 2**20,
        }
        print(json.dumps(point), flush=True)
        points.append(point)
    split = len(SWEPT_BEHAVIOURS)
    charts = []
    for axis, part in (("behaviours", points[:split]), ("candidates", points[split:])):
        lines = {name: [(p[axis], p[f"{name}_ms"]) for p in part] for name in ("all", "returning")}
        charts.append((f"Milliseconds a request by {axis}", axis, lines))
    return page("OneTrans", charts)


def _asked(rows: Rows, user: str, first: int, last: int) -> tuple[Batch, History]:
    """The request when its user had done behaviours `first` … `last` - 1."""
    names = ("behaviour_ids", "behaviour_numbers", "behaviour_index", "behaviour_ts")
    part = {name: getattr(rows, name)[first:last] for name in names}
    cut = replace(rows, behaviour_offsets=np.array([0, last - first]), **part)
    return to_batch(cut, vectors_of()), History(user, events_of(cut))


def _model(options: argparse.Namespace, behaviours: int) -> RankingModel:
    config = load_config(overrides=[*SETTINGS, *options.set]).model
    return build_model("onetrans", spec_of(behaviours), config, seed=0).eval()


def _median(work: Callable[[], object], repeats: int) -> float:
    return statistics.median(_timed(work)[0] for _ in range(repeats))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.thread_time()
    result = work()
    return 1000 * (time.thread_time() - started), result


if __name__ == "__main__":
    main()
