"""The parity probe: before a model answers, its scores on fixed made-up requests must be the ones on record.

The requests follow from the spec alone, so a folder's record does not age with the features. An export records its own
scores in float32 arithmetic on CPU (`record`); a folder without a record, such as a registry's, is held against the
same of itself. A model of another spec, a score that is not finite, or a difference beyond the tolerance is refused.
What float16 weights cost against float32 ones is recorded too, and judged elsewhere: by the gate, on real requests.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.batches import Batch, to_batch
from models.checkpoint import load_model, read_card
from models.ranking import RankingModel
from models.rows import ItemVectors, Rows
from serving.engine import Scorer
from uniscale.artifacts import read_json, write_json
from uniscale.errors import ServingError
from uniscale.samples import SampleSpec

FILE = "probe.json"
REQUESTS, CANDIDATES, ITEMS = 4, 16, 50
ASKED = 1_767_225_600  # seconds since 1970


def probe_batch(spec: SampleSpec) -> Batch:
    """`REQUESTS` made-up requests of the served domain, `CANDIDATES` candidates each; the same for the same spec."""
    return made_up(spec, REQUESTS, CANDIDATES, spec.max_behaviours)


def made_up(spec: SampleSpec, requests: int, candidates: int, behaviours: int) -> Batch:
    """Requests of the served domain with so many candidates and behaviours each; the same for the same arguments."""
    rng = np.random.default_rng(0)
    lengths = {"request": requests, "candidate": requests * candidates, "behaviour": requests * behaviours}
    columns: dict[str, NDArray] = {}
    for f in spec.features:
        size = lengths[f.level]
        if f.kind == "id":
            columns[f.name] = rng.integers(-(1 << 62), 1 << 62, size)
        elif f.kind == "count":
            columns[f.name] = rng.poisson(2.0, size).astype(np.float32)
        else:  # missing: the spec does not know the scale, and far from it scores saturate and tell nothing
            columns[f.name] = np.full(size, np.nan, np.float32)
    columns |= {
        "domain_index": np.zeros(requests, np.int64),
        "scenarios": (rng.random((requests, len(spec.scenarios))) < 0.5).astype(np.float32),
        "ts": np.full(requests, ASKED),
        "query_text": rng.normal(size=(requests, spec.text_dim)).astype(np.float32),
        "item": rng.integers(0, ITEMS, lengths["candidate"]),
        "behaviour_index": rng.integers(0, ITEMS, lengths["behaviour"]),
        "behaviour_ts": ASKED - np.sort(rng.integers(1, 10**6, lengths["behaviour"]))[::-1],
    }
    vectors = ItemVectors(
        rng.normal(size=(ITEMS, spec.content_dim)).astype(np.float32),
        rng.normal(size=(ITEMS, spec.text_dim)).astype(np.float32),
    )
    ends = np.arange(requests + 1)
    return to_batch(Rows.of(spec, columns, ends * candidates, ends * behaviours), vectors)


def record(export: RankingModel, original: RankingModel, folder: Path) -> None:
    """Write the probe's scores by an export, and by the model it was made from, into the export's folder."""
    batch = probe_batch(export.spec)
    scores = {"scores": export.score(batch).tolist(), "float32": original.score(batch).tolist()}
    write_json(Path(folder) / FILE, scores)


def check(folder: Path, scorer: Scorer, spec: SampleSpec, tolerance: float) -> float:
    """Hold a loaded model against the record of its folder.

    Args:
        folder: where it was loaded from.
        scorer: the model as it would answer.
        spec: what the service looks up; the model may read less.
        tolerance: largest difference of a score.

    Returns:
        The largest difference found.

    Raises:
        ServingError: another spec, scores that are not finite or not those on record.
    """
    folder = Path(folder)
    trained = SampleSpec.from_json(read_card(folder)["spec"])
    if not spec.covers(trained):
        lacking = sorted({f.name for f in trained.features} - {f.name for f in spec.features})
        raise ServingError(
            f"{folder} was trained on other features than this service looks up (it lacks {lacking}, or order and "
            "widths differ): package it with its own features"
        )
    batch = probe_batch(trained)
    scores = scorer.score(batch)
    if not bool(torch.isfinite(scores).all()):
        raise ServingError(f"{folder} gives scores that are not finite: train it again")
    recorded = read_json(folder / FILE)["scores"] if (folder / FILE).exists() else load_model(folder).score(batch)
    expected = torch.as_tensor(recorded, dtype=scores.dtype)
    if expected.shape != scores.shape:
        raise ServingError(f"{folder}/{FILE} holds scores of shape {tuple(expected.shape)}: export the model again")
    worst = float((scores - expected).abs().max())
    if not worst <= tolerance:
        raise ServingError(
            f"{folder} scores differ by {worst:.2g} from those on record, over {tolerance:g}: export again"
        )
    return worst
