"""Comparing systems on the same samples with several seeds: train each, judge each against the first, sum up.

A system is an entry of the zoo, the rows of Table 1 it is trained on and the settings it changes; all are judged on the
same search-exposed test rows with in-domain labels (UniScale 4.1). Every finished training and evaluation is kept, so
a comparison that was cut off goes on where it stopped.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy import stats

from models.checkpoint import read_card
from models.data import Subset
from models.evaluate import evaluate
from models.judged import COMPARED
from models.predict import stopping_value
from models.train import fingerprint, train
from uniscale.artifacts import read_json
from uniscale.config import Config, nearest, override
from uniscale.errors import ConfigError, ModelError
from uniscale.model_sections import ModelName
from uniscale.samples import SampleSpec


@dataclass(frozen=True)
class System:
    """What is compared: a model, its training rows and the settings it changes."""

    label: str
    model: str
    subset: Subset
    settings: tuple[str, ...] = ()
    paper: Mapping[str, float] = field(default_factory=dict)  # measure: published gain in percent, see Table.reading

    @classmethod
    def parse(cls, text: str) -> "System":
        """`model@rows`, then changed settings after commas: `hhsft@entire,model.hhsft.dref=false`.

        Raises:
            ConfigError: not of that form, unknown rows or an unknown model.
        """
        head, *settings = re.split(r",(?![^\[]*\])", text)  # a comma between brackets is part of a value
        model, _, subset = head.partition("@")
        subsets: tuple[Subset, ...] = get_args(Subset)
        rows = next((known for known in subsets if known == subset), None)
        if rows is None:
            raise ConfigError(f"system {text!r} is not model@rows, e.g. hhsft@entire{nearest(subset, subsets)}")
        if model not in get_args(ModelName):
            raise ConfigError(f"system {text!r}: model {model!r} is unknown{nearest(model, get_args(ModelName))}")
        return cls(text, model, rows, tuple(settings))

    @property
    def text(self) -> str:
        """What `parse` reads this system from."""
        return ",".join([f"{self.model}@{self.subset}", *self.settings])


@dataclass(frozen=True)
class Table:
    """Systems compared, the base first; for a published table also what it prints and how it stands beside ours."""

    systems: tuple[System, ...]
    measures: tuple[str, ...] = ()  # columns, e.g. click.auc; none: AUC, GAUC and HR@5 of the first task
    reading: str = ""  # how the published numbers are to be read
    not_run: Mapping[str, str] = field(default_factory=dict)  # a row or column of the paper: why it is not measured
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # line of a figure: labels of its systems
    stages: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)  # requests, samples, click positives


@dataclass(frozen=True)
class Data:
    """A samples folder, and the truth beside it where the logs were simulated."""

    samples: Path
    truth: Path | None


def compare(
    config: Config, data: Mapping[int, Data], table: Table, out: Path, rates: Sequence[float] = ()
) -> dict[str, Any]:
    """Train and judge every system on every seed's data; the first system is the base of all differences.

    Args:
        config: what the systems share; the seed is replaced by each seed of `data`.
        data: samples by seed.
        table: at least two systems, with different labels.
        out: folder of models and evaluations.
        rates: learning rates tried for every system and seed, of which the validation rows choose; none: the config's.

    Returns:
        JSON-able: `base`, `seeds`, and for each of `systems` its description, `measures` (mean, standard deviation
        and each seed's value), `differences` to the base (see `difference_over_seeds`), parameters, FLOPs a sample;
        `not_run` holds the reason of each system whose model refuses the data or whose training diverges, and what
        the table says of itself; `columns`, `reading`, `curves` and `stages` are the table's.

    Raises:
        ConfigError: fewer than two systems, a label given twice, or a setting that does not exist.
        ModelError: the base cannot be trained.
    """
    systems = table.systems
    labels = [system.label for system in systems]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ConfigError(f"a comparison needs at least two different systems, the first is the base; got {labels}")
    configs = {
        (seed, system.label): override(config, [f"seed={seed}", *system.settings])
        for seed in data
        for system in systems
    }
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    refused: dict[str, str] = {}
    for place, (seed, of_seed) in enumerate(data.items()):
        base: Path | None = None
        for system in systems:
            print(f"seed {seed} ({place + 1} of {len(data)}): {system.label}", flush=True)
            chosen = configs[seed, system.label]
            if system.label in refused:
                continue
            try:
                model, rate = tuned_system(chosen, of_seed.samples, system, Path(out), rates)
            except ModelError as error:
                if base is None:
                    raise
                print(f"{system.label}: not run, {error}", flush=True)
                refused[system.label] = str(error)
                continue
            judged = judge_system(chosen, of_seed, model, base, Path(out))
            found[system.label].append({**judged, "learning_rate": rate})
            base = base or model
    run = [system for system in systems if system.label not in refused]
    return {
        "base": labels[0],
        "seeds": list(data),
        "confidence": config.gate.confidence,
        "rates": list(rates),
        "systems": [over_seeds(system, found[system.label], config.gate.confidence) for system in run],
        "not_run": {**refused, **table.not_run},
        "columns": list(table.measures),
        "reading": table.reading,
        "curves": {name: list(labels) for name, labels in table.curves.items()},
        "stages": _stages(table, next(iter(data.values()))),
    }


def _stages(table: Table, data: Data) -> list[dict[str, Any]]:
    """Table 1 of the first seed's training days with the published multiples, where the table asks for them."""
    counted = read_json(data.samples / "manifest.json")["table1"] if table.stages else []
    names = ("requests", "samples", "click_positives")
    return [{**row, "paper": dict(zip(names, table.stages[row["stage"]], strict=True))} for row in counted]


def difference_over_seeds(values: Sequence[float], intervals: Sequence[tuple[float, float]], confidence: float) -> Any:
    """Mean of a difference and its interval.

    Several seeds: Student's t over the seeds' differences, each of which has its own training and, on simulated data,
    its own market and test users. One seed: the paired bootstrap's interval over users.
    """
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return {"mean": mean, "low": intervals[0][0], "high": intervals[0][1], "by_seed": list(values)}
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half, "by_seed": list(values)}


def train_system(config: Config, samples: Path, system: System, out: Path) -> Path:
    """The system's model folder, trained unless it is there."""
    key = fingerprint(config, samples, system.model, system.subset)
    folder = out / "models" / f"{system.model}-{system.subset}-{key}"
    if not (folder / "model.json").exists():
        train(config, samples, folder, system.model, system.subset, out / "work" / folder.name)
    return folder


def tuned_system(
    config: Config, samples: Path, system: System, out: Path, rates: Sequence[float]
) -> tuple[Path, float]:
    """The model folder and the learning rate with the best validation measure, the one that stops training early."""
    tried = {}
    for rate in rates or [config.train.learning_rate]:
        folder = train_system(override(config, [f"train.learning_rate={rate}"]), samples, system, out)
        tried[folder] = rate
    task = SampleSpec.load(samples).tasks[0]
    best = max(tried, key=lambda folder: stopping_value(read_card(folder)["training"]["validation"], task)[1])
    return best, tried[best]


def judge_system(config: Config, data: Data, model: Path, base: Path | None, out: Path) -> dict[str, Any]:
    """Measures of a model, its differences to the base and what it costs."""
    rules = f"{config.gate.confidence:g}-{config.gate.bootstrap_resamples}"
    folder = out / "evaluations" / rules / (f"{model.name}-against-{base.name}" if base else model.name)
    if not (folder / "measures.json").exists():
        evaluate(config, data.samples, model, base, folder, data.truth)
    return result_of(model, folder)


def result_of(model: Path, evaluation: Path) -> dict[str, Any]:
    """Measures of a judged model and what it costs."""
    card = read_card(model)
    report = card["training"]
    return {
        "behaviours": card["spec"]["max_behaviours"],
        "measures": read_json(evaluation / "measures.json")["measures"],
        "parameters": report["parameters"],
        "forward_flops_per_sample": report["forward_flops_per_sample"],
        "samples_per_epoch": report["samples_per_epoch"],
        "samples_per_second": report["samples_per_second"],
    }


def over_seeds(system: System, seeds: Sequence[Mapping[str, Any]], confidence: float) -> dict[str, Any]:
    """One system over its seeds (see `result_of`); a measure that any seed could not compute is null."""
    first = seeds[0]
    tasks = {key.partition(".")[0] for key in first["measures"] if key.endswith(".gauc") and key.count(".") == 1}
    names = [f"{task}.{name}" for task in sorted(tasks) for name in COMPARED]
    names += sorted(key for key in first["measures"] if key.startswith("truth."))
    measures, differences = {}, {}
    for name in names:
        values = [seed["measures"].get(name) for seed in seeds]
        known = all(value is not None for value in values)
        spread = float(np.std(values, ddof=1)) if known and len(values) > 1 else None
        measures[name] = {"mean": float(np.mean(values)) if known else None, "spread": spread, "by_seed": values}
        paired = [seed["measures"].get(f"difference.{name}") for seed in seeds]
        if all(paired):
            bounds = [(one["low"], one["high"]) for one in paired]
            differences[name] = difference_over_seeds([one["value"] for one in paired], bounds, confidence)
    return {
        "label": system.label,
        "model": system.model,
        "rows": system.subset,
        "settings": list(system.settings),
        "paper": dict(system.paper),
        "parameters": first["parameters"],
        "forward_flops_per_sample": first["forward_flops_per_sample"],
        "behaviours": first["behaviours"],
        "learning_rate": [seed["learning_rate"] for seed in seeds],
        "samples_per_epoch": [seed["samples_per_epoch"] for seed in seeds],
        "samples_per_second": [seed["samples_per_second"] for seed in seeds],
        "measures": measures,
        "differences": differences,
    }
