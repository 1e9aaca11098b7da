"""Scaling laws (est.txt 6.4): the gain over a base as a power law of what a model costs, ΔGAUC = E · X^α.

A sweep trains one entry of the zoo at several depths, widths, history lengths or volumes of training data. X is forward
FLOPs a sample or dense parameters (EST's C and P), behaviours, or samples an epoch. The fit is a line after the log
transformation, as in the paper; a gain that is not above zero has no logarithm and is left out, which the fit says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from models.compare import Data, System, judge_system, train_system
from models.curves import page
from models.views import training_days, write_view
from uniscale.config import Config, nearest, override
from uniscale.errors import ConfigError
from uniscale.samples import SampleSpec

Axis = Literal["depth", "width", "length", "data"]
DEFAULTS: dict[Axis, tuple[float, ...]] = {
    "depth": (1, 2, 3),
    "width": (16, 32, 64),
    "length": (4, 8, 16, 32),
    "data": (0.25, 0.5, 1.0),
}
SECTIONS = {"onetrans_d": "onetrans", "onetrans_f": "onetrans"}  # forms that share their sizes with another entry
KEYS: dict[Axis, dict[str, str]] = {
    "depth": {"hhsft": "hfa_layers"}
    | dict.fromkeys(
        ("dcnv2", "autoint", "hiformer", "wukong", "rankmixer", "onetrans", "est", "mdl", "mtgr"), "layers"
    ),
    "width": {"hhsft": "hfa_dim"}
    | dict.fromkeys(("autoint", "hiformer", "wukong", "rankmixer", "onetrans", "est", "mdl", "mtgr"), "dim"),
}
COSTS: dict[Axis, tuple[str, ...]] = {
    "depth": ("forward_flops_per_sample", "dense_parameters"),
    "width": ("forward_flops_per_sample", "dense_parameters"),
    "length": ("behaviours", "forward_flops_per_sample"),
    "data": ("samples_per_epoch",),
}
RESAMPLES = 1000


def setting_of(model: str, axis: Axis, value: float) -> tuple[str, ...]:
    """The setting that puts a model at a place of an axis; none for the axes of the data.

    Raises:
        ConfigError: an unknown axis, or a model that has no such size.
    """
    if axis not in get_args(Axis):
        raise ConfigError(f"axis {axis!r} is unknown{nearest(axis, get_args(Axis))}")
    if axis not in KEYS:
        return ()
    section = SECTIONS.get(model, model)
    if section not in KEYS[axis]:
        raise ConfigError(f"{model} has no {axis} to sweep; models that have: {', '.join(sorted(KEYS[axis]))}")
    return (f"model.{section}.{KEYS[axis][section]}={value:g}",)


def view(samples: Path, axis: Axis, value: float, out: Path) -> Path:
    """A samples folder that shares another's rows, with fewer behaviours or with its newest training days alone."""
    if axis not in ("length", "data"):
        return samples
    days = training_days(samples)
    kept = days[-max(1, round(value * len(days))) :] if axis == "data" else days
    target = out / "views" / f"{samples.parent.name}-{samples.name}-{axis}-{value:g}"
    if not target.exists():
        spec = SampleSpec.load(samples)
        write_view(samples, kept[0], replace(spec, max_behaviours=int(value)) if axis == "length" else spec, target)
    return target


def sweep(
    config: Config,
    data: Mapping[int, Data],
    system: System,
    base: System,
    axis: Axis,
    values: Sequence[float],
    out: Path,
) -> dict[str, Any]:
    """Train and judge a system at every value of an axis, and fit the gain over the base. What is finished is kept.

    Args:
        config: what all share; the seed is replaced by each seed of `data`.
        data: samples by seed.
        system: what is scaled.
        base: what gains are over, trained once a seed on the whole data.
        axis, values: the places; of `data` they are shares of the training days, of `length` behaviours.
        out: folder of models, evaluations and views.

    Returns:
        JSON-able: `points` with their costs and each seed's gain in GAUC of the first task, `fits` by cost.

    Raises:
        ConfigError: see `setting_of`; or fewer than two values.
    """
    if len(set(values)) < 2:
        raise ConfigError(f"a sweep needs at least two values, got {list(values)}")
    settings = {value: (*system.settings, *setting_of(system.model, axis, value)) for value in values}
    points: list[dict[str, Any]] = []
    for value in values:
        gains, costs = [], []
        for seed, of_seed in data.items():
            print(f"{system.label}, {axis} {value:g}, seed {seed}", flush=True)
            plain = override(config, [f"seed={seed}", *base.settings])
            chosen = override(config, [f"seed={seed}", *settings[value]])
            of_base = train_system(plain, of_seed.samples, base, out)
            samples = view(of_seed.samples, axis, value, out)
            model = train_system(chosen, samples, system, out)
            found = judge_system(chosen, Data(samples, of_seed.truth), model, of_base, out)
            task = SampleSpec.load(samples).tasks[0]
            gain = found["measures"][f"difference.{task}.gauc"]
            gains.append(gain["value"] if gain else None)
            costs.append(
                {
                    "forward_flops_per_sample": found["forward_flops_per_sample"],
                    "dense_parameters": found["parameters"]["dense"],
                    "behaviours": SampleSpec.load(samples).max_behaviours,
                    "samples_per_epoch": found["samples_per_epoch"],
                }
            )
        mean = {name: float(np.mean([cost[name] for cost in costs])) for name in costs[0]}
        points.append({"value": value, **mean, "gains": gains})
    fits = {
        cost: power_law(
            [(point[cost], gain) for point in points for gain in point["gains"] if gain is not None],
            config.gate.confidence,
            config.seed,
        )
        for cost in COSTS[axis]
    }
    return {
        "system": system.label,
        "base": base.label,
        "axis": axis,
        "seeds": list(data),
        "confidence": config.gate.confidence,
        "points": points,
        "fits": fits,
    }


def power_law(points: Sequence[tuple[float, float]], confidence: float, seed: int) -> dict[str, Any]:
    """Fit ΔGAUC = E · X^α through (X, ΔGAUC) after the log transformation, with bootstrap intervals over the points.

    Returns:
        E, alpha, their intervals, points used and left out; or a `reason` where there is nothing to fit.
    """
    usable = [(math.log(x), math.log(gain)) for x, gain in points if gain > 0]
    left_out = len(points) - len(usable)
    if len({x for x, _ in usable}) < 3:
        distinct = len({x for x, _ in usable})
        return {
            "reason": f"{distinct} sizes have a gain above zero ({left_out} of {len(points)} gains have not); 3 needed"
        }
    x, y = np.array(usable).T
    alpha, intercept = np.polyfit(x, y, 1)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(x), len(x))
        if len(set(x[chosen])) > 1:  # a line needs two sizes
            drawn.append(np.polyfit(x[chosen], y[chosen], 1))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    alphas, intercepts = np.quantile(np.array(drawn), tails, axis=0).T
    return {
        "E": math.exp(intercept),
        "alpha": float(alpha),
        "E_interval": np.exp(intercepts).tolist(),
        "alpha_interval": alphas.tolist(),
        "points": len(usable),
        "left_out": left_out,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The points and the fits as Markdown."""
    head = [found["axis"], "FLOPs a sample", "dense parameters", "behaviours", "samples an epoch", "ΔGAUC by seed"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---:'] * len(head))} |"]
    for point in found["points"]:
        costs = ("forward_flops_per_sample", "dense_parameters", "behaviours", "samples_per_epoch")
        gains = ", ".join("not known" if gain is None else f"{gain:+.4f}" for gain in point["gains"])
        cells = [f"{point['value']:g}", *(f"{point[cost]:,.0f}" for cost in costs), gains]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"ΔGAUC of {found['system']} over {found['base']}; fits of E · X^α after the log transformation:", ""]
    return "\n".join([*lines, *(f"- X = {cost}: {said_of(fit)}" for cost, fit in found["fits"].items()), ""])


def plots(found: Mapping[str, Any]) -> str:
    """A page with a log-log plot for each cost."""
    charts = []
    for cost, fit in found["fits"].items():
        measured = [(p[cost], gain) for p in found["points"] for gain in p["gains"] if gain is not None and gain > 0]
        series = {"measured": sorted((math.log10(x), math.log10(gain)) for x, gain in measured)}
        if "alpha" in fit:
            ends = sorted({x for x, _ in series["measured"]})
            line = [(x, math.log10(fit["E"]) + fit["alpha"] * x) for x in (ends[0], ends[-1])]
            series[f"{fit['E']:.3g} · X^{fit['alpha']:.3g}"] = line
        charts.append((f"log10 ΔGAUC over {found['base']}: {said_of(fit)}", f"log10 {cost}", series))
    return page(f"{found['system']}: {found['axis']}", charts)


def said_of(fit: Mapping[str, Any]) -> str:
    """A fit in words."""
    if "reason" in fit:
        return f"no fit: {fit['reason']}"
    (low, high), (least, most) = fit["alpha_interval"], fit["E_interval"]
    return (
        f"E {fit['E']:.3g} [{least:.3g}, {most:.3g}], α {fit['alpha']:.3g} [{low:.3g}, {high:.3g}] from "
        f"{fit['points']} points, {fit['left_out']} not above zero"
    )
