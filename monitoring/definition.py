"""An experiment as data: hypothesis, variants, metrics, guardrails with margins, the lift it should see, and its end.

One YAML file an experiment, loaded strictly. Where its data come from is part of it: logs (a serving log and log
tables), units (one row a unit of randomisation, or one a unit and day), or counts (only totals an arm are known).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from monitoring.metrics import BY_NAME, METRICS, Metric
from uniscale.config import nearest
from uniscale.errors import ConfigError
from uniscale.sections import ExperimentConfig, Mode, Section


class LogsSource(Section):
    """A serving log and log tables in the contract; metrics are built in, or made of the same columns."""

    kind: Literal["logs"]


class UnitsSource(Section):
    """A CSV or Parquet table with one row a randomised unit, or one a unit and day where `day` is named."""

    kind: Literal["units"]
    unit: str = Field(description="column that identifies the unit of randomisation")
    variant: str = Field(description="column with the variant's name")
    day: str | None = Field(description="column with the day, null where a row is a whole unit")


class CountsSource(Section):
    """Totals an arm only; trials are taken as independent, which nobody may do who knows which user made them."""

    kind: Literal["counts"]
    arm: str = Field(description="column that identifies the arm; its values are the variants")
    trials: str = Field(description="column with the number of impressions")
    where: dict[str, str] = Field(description="column: value, the rows of this experiment in a table of many")


Source = Annotated[LogsSource | UnitsSource | CountsSource, Field(discriminator="kind")]


class Stop(Section):
    """When the experiment ends."""

    days: int = Field(ge=1, description="planned length, whole days; fixed-horizon intervals decide at its end")
    early: Literal["harm", "either"] = Field(
        description="what an always-valid interval may stop before that: a loss only, or a gain as well"
    )


class Definition(Section):
    """One experiment."""

    name: str = Field(pattern=r"^[\w.-]+$")
    hypothesis: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    source: Source
    salt: str | None = Field(description="of the assignment hash; null where others assigned, so it is not rechecked")
    weights: dict[str, float] = Field(description="planned share of each variant, in the order of the assignment")
    control: str = Field(description="the variant that others are compared with")
    mode: Mode = Field(description="split: a variant for each user; interleave: the two draft everyone's list")
    metrics: tuple[Metric, ...] = Field(min_length=1, description="names of built-in metrics, or definitions")
    primary: str
    guardrails: dict[str, float] = Field(description="metric: relative non-inferiority margin")
    mde_target: float = Field(gt=0, lt=1, description="relative lift it should see")
    stop: Stop
    ramp: tuple[float, ...] = Field(description="shares of the treatment, ascending, that `ramp` steps through")
    alpha: float = Field(gt=0, lt=1)
    power: float = Field(gt=0, lt=1)
    srm_warn: float = Field(gt=0, lt=1)
    srm_block: float = Field(gt=0, lt=1)

    @field_validator("metrics", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A bare name stands for the built-in metric."""
        if not isinstance(value, list | tuple):
            return value
        unknown = [name for name in value if isinstance(name, str) and name not in BY_NAME]
        if unknown:
            raise ValueError(f"unknown metric {unknown[0]!r}{nearest(unknown[0], list(BY_NAME))}")
        return [BY_NAME[item] if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _consistent(self) -> "Definition":
        known = [metric.name for metric in self.metrics]
        if len(set(known)) < len(known):
            raise ValueError(f"metrics: a name is used twice in {known}")
        for where, name in [("primary", self.primary), *(("guardrails", name) for name in self.guardrails)]:
            if name not in known:
                raise ValueError(f"{where}: unknown metric {name!r}{nearest(name, known)}")
        if len(self.weights) < 2 or min(self.weights.values()) <= 0 or abs(sum(self.weights.values()) - 1) > 1e-6:
            raise ValueError(f"weights: at least two variants, each with a positive weight, sum 1; got {self.weights}")
        if self.control not in self.weights:
            raise ValueError(f"control: unknown variant {self.control!r}{nearest(self.control, list(self.weights))}")
        if list(self.ramp) != sorted(set(self.ramp)) or (self.ramp and not 0 < self.ramp[0] <= self.ramp[-1] <= 0.5):
            raise ValueError(f"ramp: shares ascend within (0, 0.5], got {list(self.ramp)}")
        if self.mode == "interleave" and (
            self.source.kind != "logs" or len(self.weights) != 2 or self.guardrails or self.ramp
        ):
            raise ValueError("mode interleave: needs source logs and two variants, and has no guardrails and no ramp")
        if self.source.kind != "logs":
            outside = [m.name for m in self.metrics if m.quantile or m.window_days or m.covariate is True]
            if outside:
                raise ValueError(
                    f"metrics {outside}: quantile, window_days and covariate: true need logs; name a column as "
                    "covariate, or set it to false"
                )
        return self

    @property
    def days(self) -> int:
        """Planned length in days."""
        return self.stop.days

    @property
    def treatments(self) -> tuple[str, ...]:
        """The other variants, in the order of the weights."""
        return tuple(name for name in self.weights if name != self.control)

    @property
    def means(self) -> tuple[Metric, ...]:
        """Metrics that are means or ratios over users."""
        return tuple(metric for metric in self.metrics if metric.quantile is None)

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return next(metric for metric in self.metrics if metric.name == name)


def load_definition(path: Path) -> Definition:
    """Read the YAML of one experiment.

    Raises:
        ConfigError: no such file, bad YAML, an unknown or missing key, a value out of range, an unknown metric.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"no experiment {path}: copy one of docs/examples and edit it") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    return definition_from(raw, str(path))


def definition_from(raw: Any, where: str = "experiment") -> Definition:
    """Build a definition from nested mappings (errors: see `load_definition`)."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} holds {type(raw).__name__}, not a mapping of keys")
    try:
        return Definition.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(problem) for problem in error.errors())) from None


def pipeline_definition(config: ExperimentConfig, control: str, treatment: str) -> Definition:
    """The pipeline's own A/B, from the section `experiment` of params.yaml.

    Raises:
        ConfigError: an unknown metric, or a variant without a positive weight.
    """
    raw = config.model_dump(include={"salt", "primary", "guardrails", "mde_target", "alpha", "power"})
    raw |= {"srm_warn": config.srm_warn, "srm_block": config.srm_block}
    if min(config.weights.get(name, 0.0) for name in (control, treatment)) <= 0:
        raise ConfigError(f"experiment.weights: each variant needs a positive weight, got {config.weights}")
    return definition_from(
        raw
        | {
            "name": "pipeline",
            "hypothesis": f"{treatment} serves users better than {control}.",
            "owner": "pipeline",
            "source": {"kind": "logs"},
            "weights": config.weights,
            "control": control,
            "mode": "split",
            "metrics": [*(metric.name for metric in METRICS), "latency_p99_ms"],
            "stop": {"days": config.days, "early": "harm"},
            "ramp": [],
        }
    )


def _explain(problem: Any) -> str:
    loc = [str(part) for part in problem["loc"]]
    path = ".".join(loc)
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = list(Definition.model_fields) if len(loc) == 1 else []
        return f"unknown key {path}{nearest(loc[-1], known) if known else ''}"
    if problem["type"] == "missing":
        return f"missing key {path}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
