"""The trials of a sweep, one system each, so that they can run side by side; and their table with a fit over sizes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.compare import Data, System, over_seeds, result_of
from models.compare_page import markdown, page
from models.evaluate import evaluate
from models.scaling import fit_gain, placed, said_of
from models.train import train, work_folder
from uniscale.artifacts import read_json, write_json
from uniscale.config import Config, override
from uniscale.errors import ModelError

# What `models.compare.compare` says of a published table and of learning rates tried.
UNPUBLISHED: dict[str, Any] = {"rates": [], "columns": [], "reading": "", "curves": {}, "stages": []}
COSTS = ("forward_flops_per_sample", "dense_parameters", "behaviours", "samples_per_epoch")


def trial(config: Config, data: Data, text: str, base: Path | None, out: Path, work: Path) -> None:
    """Train a system and judge it against the base; writes `trial.json`, `model` and `evaluation` below `out`.

    Args:
        config: what all systems share.
        data: the samples and the truth.
        text: the system, `model@rows,key=value…` (`models.compare.System.parse`); a key may be an axis of
            `models.scaling`, e.g. `depth=2` or `data=0.5`.
        base: output of the base's own trial, None for the base.
        out: folder to write.
        work: root of checkpoints.

    Raises:
        ConfigError: no system, or a setting that does not exist.
        ModelError: the base cannot be trained; another system that cannot is on record in `trial.json`.
    """
    out = Path(out)
    record: dict[str, Any] = {"system": text, "seed": config.seed, "refused": None, "result": None}
    with TemporaryDirectory() as scratch:  # a view is links, which no artifact may hold
        system, samples = placed(System.parse(text), data.samples, Path(scratch))
        chosen = override(config, system.settings)
        try:
            checkpoints = work_folder(Path(work), chosen, samples, system.model, system.subset)
            train(chosen, samples, out / "model", system.model, system.subset, checkpoints)
            of_base = base / "model" if base else None
            evaluate(chosen, samples, out / "model", of_base, out / "evaluation", data.truth)
            judged = result_of(out / "model", out / "evaluation")
            record["result"] = {**judged, "learning_rate": chosen.train.learning_rate}
        except ModelError as error:
            if base is None:
                raise
            print(f"{text}: not run, {error}", flush=True)
            record["refused"] = str(error)
    write_json(out / "trial.json", record)


def tabulate(trials: Sequence[Path], confidence: float, out: Path) -> dict[str, Any]:
    """Sum up trials, the base's first; writes comparison.json, .md and .html.

    Args:
        trials: outputs of `trial` on the same samples.
        confidence: of the intervals.
        out: folder to write.

    Returns:
        As `models.compare.compare`, and `fits`: the gain in GAUC of the first task as a power law of each cost, where
        at least three of the systems are one model's sizes; empty otherwise.
    """
    records = [read_json(Path(folder) / "trial.json") for folder in trials]
    run = [(System.parse(one["system"]), one["result"]) for one in records if one["refused"] is None]
    found = {
        "base": records[0]["system"],
        "seeds": [records[0]["seed"]],
        "confidence": confidence,
        "systems": [over_seeds(system, [result], confidence) for system, result in run],
        "not_run": {one["system"]: one["refused"] for one in records if one["refused"] is not None},
        **UNPUBLISHED,
    }
    found["fits"] = _fits(found["systems"][1:], confidence, records[0]["seed"])
    write_json(Path(out) / "comparison.json", found)
    (Path(out) / "comparison.md").write_text(markdown(found))
    (Path(out) / "comparison.html").write_text(page(found, f"Sweep against {found['base']}"))
    return found


def tables(found: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The comparison and its fits as titled tables for people."""
    gauc = next(name for name in found["systems"][0]["measures"] if name.endswith(".gauc"))
    rows = []
    for system in found["systems"]:
        gain = system["differences"].get(gauc)
        said = f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" if gain else "base"
        value = system["measures"][gauc]["mean"]
        costs = [f"{system['parameters']['dense']:,}", f"{system['forward_flops_per_sample']:,}"]
        rows.append([system["label"], *costs, "" if value is None else f"{value:.4f}", said])
    rows += [[label, "", "", "", f"not run: {why}"] for label, why in found["not_run"].items()]
    fits = [[f"X = {cost}", said_of(fit)] for cost, fit in found["fits"].items()]
    return [
        (f"Against {found['base']}", ["system", "dense parameters", "FLOPs a sample", gauc, "difference"], rows),
        *([("Gain in GAUC as E · X^α", ["", ""], fits)] if fits else []),
    ]


def _fits(systems: Sequence[dict[str, Any]], confidence: float, seed: int) -> dict[str, Any]:
    if len(systems) < 3 or len({system["model"] for system in systems}) > 1:
        return {}
    gains = [next((d["mean"] for m, d in s["differences"].items() if m.endswith(".gauc")), None) for s in systems]
    costs = {name: [_cost(system, name) for system in systems] for name in COSTS}
    return {
        name: fit_gain([(x, g) for x, g in zip(of, gains, strict=True) if g is not None], confidence, seed)
        for name, of in costs.items()
        if len(set(of)) > 1
    }


def _cost(system: dict[str, Any], name: str) -> float:
    if name == "dense_parameters":
        return float(system["parameters"]["dense"])
    return float(system[name][0] if name == "samples_per_epoch" else system[name])
