"""Evaluation: candidate and champion on the same test rows, each as it ships, measured, compared and kept.

All models are judged on the target domain's exposed rows of the test days with in-domain labels; attributed labels,
which would favour ES3, get measures of their own (UniScale 4.1.1, 4.1.3).
"""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from models import metrics
from models.calibrate import sigmoid
from models.cells import Floats, group_codes
from models.checkpoint import load_model
from models.cohorts import slices_of
from models.data import RowFile, read_rows, row_files
from models.judged import Judged, Measures, compare, measure
from models.predict import predict_logits
from models.ranking import RankingModel
from models.rows import ItemVectors, Rows
from models.train import resolve_device
from models.truth import measure_truth
from uniscale.artifacts import atomic_folder, content_hash, read_json, write_json
from uniscale.config import Config
from uniscale.errors import DataError, ModelError
from uniscale.progress import Progress
from uniscale.samples import LabelSource, SampleSpec, Sampling

KEYS = ("request_id", "user_id", "query", "ts")


def evaluate(
    config: Config, samples: Path, candidate: Path, champion: Path | None, out: Path, truth: Path | None = None
) -> dict[str, Any]:
    """Judge a candidate, beside a champion where there is one.

    Args:
        config: sections `gate` (confidence, resamples) and `train` (device, batch) and the seed are used.
        samples: the samples folder.
        candidate: model folder; it is not touched.
        champion: model folder of the present champion, or None for a first model.
        out: folder to write: `model` (the candidate as judged), predictions.parquet, measures.json.
        truth: folder of a simulation's truth, for measures on the entire candidate list.

    Returns:
        What measures.json holds: candidate, champion, confidence, resamples, flat `measures` (null where undefined,
        with the reason in `reasons`), and the table `slices`.

    Raises:
        DataError: the samples lack test rows of the target domain.
        ModelError: a model folder cannot be read, or reads features that the samples lack.
    """
    samples, gate = Path(samples), config.gate
    device = resolve_device(config.train.device)
    with atomic_folder(Path(out)) as folder:
        shutil.copytree(candidate, folder / "model")
        models = {"candidate": load_model(folder / "model", device)}
        spec = models["candidate"].spec
        if champion is not None:
            models["champion"] = _champion(champion, spec, device)
        unexposed = truth is not None  # only the truth can judge what nobody saw
        rows = _test_rows(samples, spec, unexposed)
        exposed = _sampling(rows) == Sampling.EXPOSED
        shown = rows.keep(exposed)
        others = _other_domains(samples, spec)
        passes = len(models) * (rows.candidates + sum(file.candidates for files in others.values() for file in files))
        total = passes + shown.candidates
        scorer = Scorer(ItemVectors.load(samples, spec), config.train.batch_samples, Progress("scores", total, "rows"))

        scores = {}
        for name, model in models.items():
            own = rows if model.spec == spec else _test_rows(samples, model.spec, unexposed)
            scores[name] = scorer(model, own)
        judged = _judged(shown, {m: {t: s[exposed] for t, s in of.items()} for m, of in scores.items()})
        found = Measures()
        measure(judged, found)
        _parity(models["candidate"], shown, judged, scorer, found)
        _measure_domains(models, others, scorer, found)
        scorer.progress.finish()
        if truth is not None:
            table = pq.ParquetFile(samples / "items.parquet").read(columns=["index", "item_id"])
            measure_truth(rows, scores, table, truth, found)
        parts = slices_of(shown, row_files(samples, "train", "search", spec))
        slices = compare(judged, parts, gate.bootstrap_resamples, gate.confidence, config.seed, found)
        pq.write_table(_predictions(shown, judged), folder / "predictions.parquet", compression="zstd")
        result = {
            "candidate": _describe(models["candidate"], folder / "model"),
            "champion": _describe(models["champion"], Path(champion)) if champion is not None else None,
            "confidence": gate.confidence,
            "resamples": gate.bootstrap_resamples,
            "splits": read_json(samples / "manifest.json")["splits"],
            "measures": found.values,
            "slices": slices,
            "reasons": found.reasons,
        }
        write_json(folder / "measures.json", result)
    return result


@dataclass(frozen=True)
class Scorer:
    """Calibrated probabilities of list-wise rows."""

    vectors: ItemVectors
    batch_samples: int
    progress: Progress

    def __call__(self, model: RankingModel, rows: Rows) -> dict[str, Floats]:
        """Probabilities of each task, (N,)."""
        logits = self.logits(model, rows)
        slope, intercept = model.slope.tolist(), model.intercept.tolist()
        return {t: sigmoid(slope[i] * logits[:, i] + intercept[i]) for i, t in enumerate(model.spec.tasks)}

    def logits(self, model: RankingModel, rows: Rows) -> Floats:
        """Logits (N, T)."""
        found = predict_logits(model, rows, self.vectors, self.batch_samples).astype(np.float64)
        self.progress.advance(rows.candidates)
        return found


def _test_rows(samples: Path, spec: SampleSpec, unexposed: bool) -> Rows:
    """Target-domain rows of the test days with every label; the unexposed candidates too where asked."""
    rows = read_rows(row_files(samples, "test", "attributed", spec), spec, "attributed", KEYS)
    if not rows.candidates:
        raise DataError(f"{samples} has no exposed {spec.domains[0]} rows for test: samples.test_days is too short")
    return rows if unexposed else rows.keep(_sampling(rows) == Sampling.EXPOSED)


def _sampling(rows: Rows) -> NDArray[np.int8]:
    assert rows.sampling is not None
    return rows.sampling


def _champion(folder: Path, spec: SampleSpec, device: torch.device) -> RankingModel:
    """The champion, which may read other features than the candidate but must answer the same questions."""
    model = load_model(folder, device)
    for part in ("tasks", "domains"):
        if getattr(model.spec, part) != getattr(spec, part):
            raise ModelError(
                f"champion {folder} has {part} {getattr(model.spec, part)}, the candidate {getattr(spec, part)}: they "
                "cannot be compared; train a baseline on these samples and promote it first"
            )
    return model


def _judged(shown: Rows, scores: dict[str, dict[str, Floats]]) -> Judged:
    """Codes, labels and scores of exposed rows."""
    keys, request_of = shown.keys, shown.request_of
    assert keys is not None and shown.label_source is not None
    in_domain = shown.labels * (shown.label_source == LabelSource.IN_DOMAIN)
    user = group_codes(keys["user_id"])
    return Judged(
        request=request_of,
        user=user[request_of],
        group=group_codes(keys["user_id"], keys["query"])[request_of],
        day=group_codes(_days(shown))[request_of],
        labels={task: in_domain[:, i] for i, task in enumerate(shown.spec.tasks)},
        attributed={task: shown.labels[:, i] for i, task in enumerate(shown.spec.tasks)},
        scores=scores,
    )


def _parity(model: RankingModel, shown: Rows, judged: Judged, scorer: Scorer, found: Measures) -> None:
    """What the service's half-precision weights (matrices only, as it ships them) change in the scores."""
    half = copy.deepcopy(model)
    with torch.no_grad():
        for values in (*half.parameters(), *half.buffers()):
            if values.is_floating_point() and values.ndim >= 2:
                values.copy_(values.half())
    task = model.spec.tasks[0]
    if not all(values.isfinite().all() for values in half.parameters()):
        for name in ("max_difference", "rank_correlation", "auc_difference"):
            found.set(f"parity.{name}", float("nan"), "weights beyond 65504 overflow in half precision")
        return
    full, rounded = judged.scores["candidate"][task], scorer(half, shown)[task]
    labels = judged.labels[task]
    found.set("parity.max_difference", float(np.abs(full - rounded).max()), "there are no rows")
    ranks = [np.unique(values, return_inverse=True)[1] for values in (full, rounded)]
    found.set("parity.rank_correlation", _correlation(*ranks), "all scores are equal")
    found.set("parity.auc_difference", abs(metrics.auc(labels, full) - metrics.auc(labels, rounded)), "one class only")


def _correlation(first: NDArray, second: NDArray) -> float:
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _other_domains(samples: Path, spec: SampleSpec) -> dict[str, list[RowFile]]:
    """Files of the searchified test rows of each domain but the target."""
    files = row_files(samples, "test", "entire", spec)
    return {
        domain: [file for file in files if file.path.parent.name == f"domain={domain}" and file.candidates]
        for domain in spec.domains[1:]
    }


def _measure_domains(
    models: dict[str, RankingModel], others: dict[str, list[RowFile]], scorer: Scorer, found: Measures
) -> None:
    """Measures on searchified rows, whose labels are pseudo-labels by construction; GAUC by request."""
    for domain, files in others.items():
        for name, model in models.items():
            task = model.spec.tasks[0]
            key = f"{'' if name == 'candidate' else f'{name}.'}domain.{domain}.{task}"
            if not files:
                found.set(f"{key}.auc", float("nan"), f"there are no test rows of {domain}")
                continue
            rows = read_rows(files, model.spec, "entire", KEYS)
            scores, why = scorer(model, rows)[task], f"the rows of {domain} hold one class only"
            found.set(f"{key}.auc", metrics.auc(rows.labels[:, 0], scores), why)
            found.set(f"{key}.gauc", metrics.gauc(rows.labels[:, 0], scores, rows.request_of), why)


def _predictions(shown: Rows, judged: Judged) -> pa.Table:
    """One row a judged candidate: what it is, its labels and where they came from, and the models' probabilities."""
    keys, request_of = shown.keys, shown.request_of
    assert keys is not None and shown.label_source is not None
    names = np.array(shown.spec.scenarios, object)
    scenario = pa.array([list(names[row > 0]) for row in shown.scenarios], pa.list_(pa.string()))
    index = pa.array(request_of)
    columns: dict[str, Any] = {name: keys[name].take(index) for name in KEYS}
    columns["day"] = pa.array(_days(shown)).take(index)
    columns["domain"] = pa.array([shown.spec.domains[0]] * shown.candidates).dictionary_encode()
    columns["scenario"] = scenario.take(index)
    columns["item"] = shown.item
    for place, task in enumerate(shown.spec.tasks):
        columns[f"{task}_label"] = judged.labels[task].astype(np.int8)
        columns[f"{task}_attributed"] = judged.attributed[task].astype(np.int8)
        columns[f"{task}_source"] = shown.label_source[:, place]
        for model, scores in judged.scores.items():
            columns[task if model == "candidate" else f"{model}_{task}"] = scores[task]
    return pa.table(columns)


def _days(rows: Rows) -> NDArray[np.str_]:
    """ISO day of each request, (R,)."""
    return rows.ts.astype("datetime64[s]").astype("datetime64[D]").astype(str)


def _describe(model: RankingModel, folder: Path) -> dict[str, Any]:
    """Name, size and content of a model; a registry knows the champion by `hash`."""
    parameters = sum(values.numel() for values in model.parameters())
    return {"name": model.name, "hash": content_hash(folder), "parameters": parameters}
