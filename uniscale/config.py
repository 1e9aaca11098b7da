"""Loads every knob of a run from `params.yaml`, a source's own values and overrides (fields: `uniscale.sections`).

Loading is strict: an unknown or missing key is a `ConfigError` with its dotted path and the nearest valid name.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import Field, ValidationError

from uniscale.errors import ConfigError
from uniscale.model_sections import ModelConfig
from uniscale.sections import (
    CostConfig,
    DataConfig,
    DriftConfig,
    ExperimentConfig,
    FeatureConfig,
    GateConfig,
    IngestConfig,
    NotifyConfig,
    RetrainingConfig,
    SamplesConfig,
    Section,
    ServingConfig,
    SimulationConfig,
    SparkConfig,
    TrainConfig,
)


class Config(Section):
    """A whole run."""

    seed: int = Field(ge=0)
    data: DataConfig
    simulation: SimulationConfig
    ingest: IngestConfig
    features: FeatureConfig
    spark: SparkConfig
    samples: SamplesConfig
    model: ModelConfig
    train: TrainConfig
    gate: GateConfig
    cost: CostConfig
    serving: ServingConfig
    experiment: ExperimentConfig
    drift: DriftConfig
    retraining: RetrainingConfig
    notify: NotifyConfig

    @property
    def registered_model(self) -> str:
        """Name of the model in the registry."""
        return self.data.registered_model or f"ranker-{self.data.source}"


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Load `params.yaml` (the embedded one unless `path` is given) and apply `a.b=value` overrides, values in YAML.

    The file's `sources` block holds what a data source changes; the block of the chosen `data.source` is applied
    before the overrides.

    Raises:
        ConfigError: no such file, bad YAML, an unknown or missing key, a value out of range.
    """
    raw = _read(path)
    pairs = [_split(override) for override in overrides]
    per_source = raw.pop("sources", {})
    source = dict(pairs).get("data.source", raw.get("data", {}).get("source"))
    for key, value in _leaves(per_source.get(source, {})):
        _assign(raw, key, value)
    for key, value in pairs:
        _assign(raw, key, value)
    return config_from(raw)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """A configuration with further `section.key=value` pairs applied (see `load_config` for the errors)."""
    raw = config.model_dump()
    for key, value in map(_split, overrides):
        _assign(raw, key, value)
    return config_from(raw)


def config_from_sections(seed: int, **sections: str) -> Config:
    """A Config whose named sections are given as JSON, as pipeline parameters carry them.

    The sections a step does not name keep the embedded values, which that step does not read; so the cache key of a
    step holds exactly what it depends on.
    """
    raw = _read(None)
    raw.pop("sources", None)
    return config_from({**raw, "seed": seed, **{name: json.loads(text) for name, text in sections.items()}})


def model_section(stored: Mapping[str, Any], name: str) -> ModelConfig:
    """The model section that a model folder was written with, whatever architectures joined the zoo since.

    Sections of other architectures that it lacks take the embedded values, which that model does not read.

    Raises:
        ConfigError: a value of its own is missing, unknown or out of range.
    """
    others = {k: v for k, v in _read(None)["model"].items() if isinstance(v, dict) and k != name}
    try:
        return ModelConfig.model_validate({**others, **stored})
    except ValidationError as error:
        raise ConfigError("; ".join(explain(problem, Config, "model") for problem in error.errors())) from None


def embedded_values() -> str:
    """The text of the embedded params.yaml: a checkout's, or the copy that a wheel or a Bento carries."""
    checkout = Path(__file__).resolve().parent.parent / "params.yaml"
    return (
        checkout.read_text() if checkout.exists() else resources.files("uniscale").joinpath("params.yaml").read_text()
    )


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        text = embedded_values()
    elif Path(path).exists():
        text = Path(path).read_text()
    else:
        raise ConfigError(f"no config file {path}: copy params.yaml and edit it, or leave --config out")
    try:
        raw = yaml.load(text, yaml.CSafeLoader)  # every step reads it, and libyaml is seven times as fast
    except yaml.YAMLError as error:
        raise ConfigError(f"{path or 'params.yaml'} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path or 'params.yaml'} holds {type(raw).__name__}, not a mapping of sections")
    return raw


def _split(override: str) -> tuple[str, Any]:
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"--set takes key=value, got {override!r}, e.g. --set train.epochs=2")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from None


def _leaves(tree: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """Dotted paths of a two-level override block; a mapping below a section's key is one value."""
    return [(f"{section}.{key}", value) for section, block in tree.items() for key, value in block.items()]


def config_from(raw: Mapping[str, Any]) -> Config:
    """Build a Config from nested mappings (see `load_config` for the errors)."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("; ".join(explain(problem, Config) for problem in error.errors())) from None


def _assign(raw: dict[str, Any], dotted: str, value: Any) -> None:
    node, path = raw, dotted.split(".")
    for depth, name in enumerate(path):
        if not isinstance(node, dict) or name not in node:
            known = list(node) if isinstance(node, dict) else []
            raise ConfigError(f"unknown key {'.'.join(path[: depth + 1])}{nearest(name, known)}")
        if depth == len(path) - 1:
            node[name] = value
        node = node[name]


def explain(problem: Any, root: type[Section], *below: str) -> str:
    """One problem that pydantic found in a section tree, as path, value and remedy.

    Args:
        problem: an entry of `ValidationError.errors()`.
        root: the section that `below` and the problem's path start from.
        below: path of the validated section in `root`.
    """
    place = (*below, *problem["loc"])
    path = ".".join(str(part) for part in place)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {path}{nearest(str(place[-1]), _siblings(root, place))}"
    if problem["type"] == "missing":
        return f"missing key {path}: every key must be there"
    if problem["type"] == "value_error":
        return f"{path}: {problem['ctx']['error']}".removeprefix(": ")
    if problem["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        return f"{path} = {problem['input']!r} is unknown{nearest(str(problem['input']), known)}"
    return f"{path} = {problem['input']!r}: {problem['msg']}"


def _siblings(root: Any, loc: tuple[Any, ...]) -> list[str]:
    for part in loc[:-1]:
        of_dict = get_args(root)
        root = of_dict[-1] if of_dict else root.model_fields[part].annotation
    return list(root.model_fields)


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error message: the known name closest to a wrong one, or all known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
