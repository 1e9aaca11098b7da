"""Scaling laws (est.txt 6.4): the gain over a base as a power law of what a model costs, ΔGAUC = E · X^α.

A sweep trains one entry of the zoo at several depths, widths, history lengths or volumes of training data, or at
several values of any key of its section (UniScale's Figure 4: model.hhsft.gfa_dim). X is forward FLOPs a sample or
dense parameters (EST's C and P), behaviours, or samples an epoch. The fit is a line after the log transformation, as in
EST; a gain that is not above zero has no logarithm and is left out, which the fit says. Beside it stands the gain for
ten times the cost, the slope of a line over log X, which takes every gain (OneTrans 4.5 draws that line).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.compare import Data, System, judge_system, train_system
from models.curves import page
from models.judged import COMPARED
from models.views import training_days, write_view
from uniscale.config import Config, nearest, override
from uniscale.errors import ConfigError
from uniscale.samples import SampleSpec

Axis = Literal["depth", "width", "length", "data"]
DEFAULTS: dict[str, tuple[float, ...]] = {
    "depth": (1, 2, 3),
    "width": (16, 32, 64),
    "length": (4, 8, 16, 32),
    "data": (0.25, 0.5, 1.0),
}
SECTIONS = {"onetrans_d": "onetrans", "onetrans_f": "onetrans"}  # forms that share their sizes with another entry
KEYS: dict[str, dict[str, str]] = {
    "depth": {"hhsft": "hfa_layers"}
    | dict.fromkeys(
        ("dcnv2", "autoint", "hiformer", "wukong", "rankmixer", "onetrans", "est", "mdl", "mtgr"), "layers"
    ),
    "width": {"hhsft": "hfa_dim", "dlrm_mlp": "hidden", "dcnv2": "hidden"}
    | dict.fromkeys(("autoint", "hiformer", "wukong", "rankmixer", "onetrans", "est", "mdl", "mtgr"), "dim"),
}
AMONG = dict.fromkeys(("depth", "width", "length"), "numbers from 1") | {"data": "shares of the days, above 0 to 1"}
SIZE = ("forward_flops_per_sample", "dense_parameters")
COSTS: dict[str, tuple[str, ...]] = {  # of a key of the model: SIZE
    "depth": SIZE,
    "width": SIZE,
    "length": ("behaviours", "forward_flops_per_sample"),
    "data": ("samples_per_epoch",),
}
RESAMPLES = 1000


def setting_of(model: str, axis: str, value: float) -> tuple[str, ...]:
    """The setting that puts a model at a place of an axis; none for the axes of the data.

    Raises:
        ConfigError: an unknown axis, or a model that has no such size.
    """
    section = SECTIONS.get(model, model)
    if axis.startswith("model."):
        if not axis.startswith(f"model.{section}."):
            raise ConfigError(f"axis {axis} is no size of {model}: give a key of model.{section}")
        return (f"{axis}={value:g}",)
    if axis not in get_args(Axis):
        raise ConfigError(
            f"axis {axis!r} is unknown{nearest(axis, get_args(Axis))}; any key of model.{section} is one too"
        )
    if not 0 < value <= (1 if axis == "data" else math.inf):
        raise ConfigError(f"{axis} = {value:g} is no place of that axis: take {AMONG[axis]}")
    if axis not in KEYS:
        return ()
    if section not in KEYS[axis]:
        raise ConfigError(f"{model} has no {axis} to sweep; models that have: {', '.join(sorted(KEYS[axis]))}")
    key = KEYS[axis][section]
    sizes = f"[{2 * value:g}, {value:g}]" if key == "hidden" else f"{value:g}"
    return (f"model.{section}.{key}={sizes}",)


def view(samples: Path, axis: str, value: float, out: Path) -> Path:
    """A samples folder that shares another's rows, with fewer behaviours or with its newest training days alone.

    Raises:
        ConfigError: more behaviours than the samples hold.
    """
    if axis not in ("length", "data"):
        return samples
    held = SampleSpec.load(samples).max_behaviours
    if axis == "length" and value > held:
        raise ConfigError(f"length = {value:g}, but the samples hold {held} behaviours: set features.max_behaviours")
    days = training_days(samples)
    kept = days[-max(1, round(value * len(days))) :] if axis == "data" else days
    target = out / "views" / f"{samples.parent.name}-{samples.name}-{axis}-{value:g}"
    if not target.exists():
        spec = SampleSpec.load(samples)
        write_view(samples, kept[0], replace(spec, max_behaviours=int(value)) if axis == "length" else spec, target)
    return target


def placed(system: System, samples: Path, out: Path) -> tuple[System, Path]:
    """A system whose settings name places of axes, `depth=2` or `data=0.5`: with real settings, and what it is fed.

    Args:
        system: as `System.parse` gives it; its other settings stay.
        samples: a samples folder.
        out: folder for a view of the samples, see `view`.

    Raises:
        ConfigError: a place that is no number, or none of the model's or of the data's.
    """
    settings: list[str] = []
    for setting in system.settings:
        axis, _, text = setting.partition("=")
        if axis not in get_args(Axis):
            settings.append(setting)
            continue
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(f"{system.label}: {setting} takes a number, e.g. {axis}={DEFAULTS[axis][0]:g}") from None
        settings += setting_of(system.model, axis, value)
        samples = view(samples, axis, value, out)
    return replace(system, settings=tuple(settings)), samples


def sweep_point(
    config: Config,
    samples: Path,
    truth: Path | None,
    system: str,
    base: str,
    axis: str,
    value: float,
    measure: str,
    out: Path,
) -> dict[str, Any]:
    """One training of a sweep, with its base: what it costs and what it gains. What is finished is kept.

    Args:
        config: with the seed of the data.
        samples, truth: a samples folder, and the truth of a simulation.
        system, base: as `System.parse` reads them.
        axis, value: of `data` a share of the training days, of `length` behaviours.
        measure: of the first task, e.g. gauc.
        out: folder of models, evaluations and views; points may share it.

    Returns:
        JSON-able: forward_flops_per_sample, dense_parameters, behaviours, samples_per_epoch, and the gain or None.

    Raises:
        ConfigError: see `setting_of` and `view`; or an unknown measure.
    """
    scaled, over = System.parse(system), System.parse(base)
    if measure not in COMPARED:
        raise ConfigError(f"measure {measure!r} is unknown{nearest(measure, COMPARED)}")
    chosen = override(config, [*scaled.settings, *setting_of(scaled.model, axis, value)])
    of_base = train_system(override(config, over.settings), samples, over, out)
    seen = view(samples, axis, value, out)
    found = judge_system(chosen, Data(seen, truth), train_system(chosen, seen, scaled, out), of_base, out)
    gain = found["measures"][f"difference.{SampleSpec.load(seen).tasks[0]}.{measure}"]
    return {
        "forward_flops_per_sample": found["forward_flops_per_sample"],
        "dense_parameters": found["parameters"]["dense"],
        "behaviours": found["behaviours"],
        "samples_per_epoch": found["samples_per_epoch"],
        "gain": gain["value"] if gain else None,
    }


def sweep(
    config: Config,
    data: Mapping[int, Data],
    system: System,
    base: System,
    axis: str,
    values: Sequence[float],
    out: Path,
    measure: str = "gauc",
) -> dict[str, Any]:
    """Train and judge a system at every value of an axis and every seed, and fit the gain over the base.

    Args:
        config: what all share; the seed is replaced by each seed of `data`.
        data: samples by seed.
        system: what is scaled.
        base: what gains are over, trained once a seed on the whole data.
        axis, values, measure, out: see `sweep_point`.

    Returns:
        JSON-able: see `summary`.

    Raises:
        ConfigError: see `sweep_point`; or fewer than two values.
    """
    if len(set(values)) < 2:
        raise ConfigError(f"a sweep needs at least two values, got {list(values)}")
    for value in values:  # a wrong one is refused before anything is trained
        override(config, setting_of(system.model, axis, value))
        for of_seed in data.values():
            view(of_seed.samples, axis, value, out)
    found: dict[float, list[dict[str, Any]]] = {value: [] for value in values}
    for value in values:
        for seed, of_seed in data.items():
            print(f"{system.label}, {axis} {value:g}, seed {seed}", flush=True)
            own = override(config, [f"seed={seed}"])
            place = (system.text, base.text, axis, value, measure, out)
            found[value].append(sweep_point(own, of_seed.samples, of_seed.truth, *place))
    return summary(config, list(data), system, base, axis, measure, found)


def summary(
    config: Config,
    seeds: Sequence[int],
    system: System,
    base: System,
    axis: str,
    measure: str,
    found: Mapping[float, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """A sweep from the results of its points, by value and seed.

    Returns:
        JSON-able: `points` with their mean costs and each seed's gain, `fits` by cost.
    """
    points: list[dict[str, Any]] = []
    for value, of_value in found.items():
        costs = {name: float(np.mean([one[name] for one in of_value])) for name in of_value[0] if name != "gain"}
        points.append({"value": value, **costs, "gains": [one["gain"] for one in of_value]})
    fits = {}
    for cost in COSTS.get(axis, SIZE):
        known = [(point[cost], gain) for point in points for gain in point["gains"] if gain is not None]
        fits[cost] = fit_gain(known, config.gate.confidence, config.seed)
    return {
        "system": system.label,
        "base": base.label,
        "axis": axis,
        "measure": measure,
        "seeds": list(seeds),
        "confidence": config.gate.confidence,
        "points": points,
        "fits": fits,
    }


def fit_gain(points: Sequence[tuple[float, float]], confidence: float, seed: int) -> dict[str, Any]:
    """What `power_law` finds through (X, gain), and the gain `per_decade`."""
    return {**power_law(points, confidence, seed), "per_decade": per_decade(points, confidence, seed)}


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
    (alpha, intercept), (alphas, intercepts) = line(np.array(usable), confidence, seed)
    return {
        "E": math.exp(intercept),
        "alpha": float(alpha),
        "E_interval": np.exp(intercepts).tolist(),
        "alpha_interval": alphas.tolist(),
        "points": len(usable),
        "left_out": left_out,
    }


def per_decade(points: Sequence[tuple[float, float]], confidence: float, seed: int) -> dict[str, Any] | None:
    """The gain for ten times the cost and its interval: slope of a line over log10 X; None for fewer than 3 sizes."""
    if len({x for x, _ in points}) < 3:
        return None
    (slope, _), (slopes, _) = line(np.array([(math.log10(x), gain) for x, gain in points]), confidence, seed)
    return {"slope": float(slope), "interval": slopes.tolist()}


def line(points: NDArray, confidence: float, seed: int) -> tuple[NDArray, NDArray]:
    """Slope and intercept of (n, 2) points by least squares, (2,), and their bootstrap intervals, (2, 2)."""
    x, y = points.T
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(x), len(x))
        if len(set(x[chosen])) > 1:  # a line needs two sizes
            drawn.append(np.polyfit(x[chosen], y[chosen], 1))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    return np.polyfit(x, y, 1), np.quantile(np.array(drawn), tails, axis=0).T


def markdown(found: Mapping[str, Any]) -> str:
    """The points and the fits as Markdown."""
    head = [found["axis"], "FLOPs a sample", "dense parameters", "behaviours", "samples an epoch"]
    head.append(f"Δ{found['measure'].upper()} by seed")
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---:'] * len(head))} |"]
    for point in found["points"]:
        costs = ("forward_flops_per_sample", "dense_parameters", "behaviours", "samples_per_epoch")
        gains = ", ".join("not known" if gain is None else f"{gain:+.4f}" for gain in point["gains"])
        cells = [f"{point['value']:g}", *(f"{point[cost]:,.0f}" for cost in costs), gains]
        lines.append(f"| {' | '.join(cells)} |")
    gain = f"Δ{found['measure'].upper()}"
    lines += [
        "",
        f"{gain} of {found['system']} over {found['base']}; fits of E · X^α after the log transformation:",
        "",
    ]
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
        gain = f"Δ{found['measure'].upper()}"
        charts.append((f"log10 {gain} over {found['base']}: {said_of(fit)}", f"log10 {cost}", series))
    return page(f"{found['system']}: {found['axis']}", charts)


def said_of(fit: Mapping[str, Any]) -> str:
    """A fit in words."""
    decade = fit["per_decade"]
    rise = (
        ""
        if decade is None
        else "; for ten times X {:+.4f} [{:+.4f}, {:+.4f}]".format(decade["slope"], *decade["interval"])
    )
    if "reason" in fit:
        return f"no fit: {fit['reason']}{rise}"
    (low, high), (least, most) = fit["alpha_interval"], fit["E_interval"]
    return (
        f"E {fit['E']:.3g} [{least:.3g}, {most:.3g}], α {fit['alpha']:.3g} [{low:.3g}, {high:.3g}] from "
        f"{fit['points']} points, {fit['left_out']} not above zero{rise}"
    )
