"""What a model costs to serve, before it is deployed: latency of the reference load and memory of its weights.

The reference load is one request at a time on one core: the user, query and behaviours of a test request, with as many
candidates as the service is sized for. It covers what a model changes, batching and scoring; HTTP and the feature
store come on top and are measured by the smoke test. The clock is the processor's, which stands still while other
processes have the core, and both models answer in turns: a busy machine does not reject a model.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.batches import to_batch
from models.checkpoint import load_model
from models.data import read_rows, row_files
from models.ranking import RankingModel
from models.rows import ItemVectors, Rows
from uniscale.artifacts import atomic_folder, write_json
from uniscale.errors import DataError
from uniscale.sections import CostConfig

WARM_UP = 5  # requests before the clock counts
MIB = 1 << 20


def cost(config: CostConfig, seed: int, samples: Path, candidate: Path, champion: Path, out: Path) -> dict[str, float]:
    """Measure both models on the same requests and write flat `measures.json`, for the gate, into `out`.

    Args:
        config: the reference load.
        seed: draws requests and candidates.
        samples: the samples folder, whose test rows are asked.
        candidate: model folder.
        champion: model folder to set the candidate beside.
        out: folder to write.

    Returns:
        `cost.p50_ms`, `cost.p99_ms`, `cost.weights_mib` (as loaded, in float32), the same as `champion.cost.…`, and
        `cost.p50_ratio`, candidate over champion.

    Raises:
        DataError: the samples have no test rows.
        ModelError: a model folder cannot be read.
    """
    models = {"": load_model(Path(candidate)), "champion.": load_model(Path(champion))}
    loads = {name: _load(Path(samples), model, config, seed) for name, model in models.items()}
    vectors = {name: ItemVectors.load(Path(samples), model.spec) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(WARM_UP + config.requests):
            for name, model in models.items():
                started = time.process_time()
                model.score(to_batch(loads[name][turn % config.requests], vectors[name]))
                seconds[name].append(time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    measures = {}
    for name, model in models.items():
        taken = 1000 * np.array(seconds[name][WARM_UP:])
        measures[f"{name}cost.p50_ms"] = float(np.quantile(taken, 0.5))
        measures[f"{name}cost.p99_ms"] = float(np.quantile(taken, 0.99))
        measures[f"{name}cost.weights_mib"] = weights_mib(model)
    measures["cost.p50_ratio"] = measures["cost.p50_ms"] / measures["champion.cost.p50_ms"]
    with atomic_folder(Path(out)) as folder:
        write_json(folder / "measures.json", measures)
    return measures


def weights_mib(model: RankingModel) -> float:
    """Memory of all parameters and buffers, MiB."""
    tensors = (*model.parameters(), *model.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB


def _load(samples: Path, model: RankingModel, config: CostConfig, seed: int) -> list[Rows]:
    rows = read_rows(row_files(samples, "test", "search", model.spec), model.spec, "search")
    if not rows.candidates:
        raise DataError(
            f"{samples} has no exposed {model.spec.domains[0]} rows for test: samples.test_days is too short"
        )
    rng = np.random.default_rng(seed)
    asked = rng.integers(0, rows.requests, config.requests)
    return [_request(rows, int(request), rng.integers(0, rows.candidates, config.candidates)) for request in asked]


def _request(rows: Rows, request: int, candidates: NDArray[np.int64]) -> Rows:
    """One request with the given candidates in place of its own."""
    return replace(
        rows.take(np.array([request])),
        offsets=np.array([0, len(candidates)]),
        candidate_ids=rows.candidate_ids[candidates],
        candidate_numbers=rows.candidate_numbers[candidates],
        item=rows.item[candidates],
        labels=rows.labels[candidates],
        sampling=None,
        label_source=None,
    )
