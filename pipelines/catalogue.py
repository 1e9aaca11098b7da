"""The pipelines by their names, and how one becomes IR YAML."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import backfill, monitoring, sweep, training
from uniscale.config import Config, nearest
from uniscale.errors import ConfigError
from uniscale.profile import Profile


@dataclass(frozen=True)
class Definition:
    """A pipeline: its name in Kubeflow, what builds it, its steps in a reader's order."""

    name: str
    build: Callable[[Config, Profile | None], Any]
    steps: tuple[str, ...]


PIPELINES = {
    "training": Definition(training.NAME, training.training_pipeline, training.STEPS),
    "continuous": Definition(training.CONTINUOUS, training.continuous_pipeline, training.CONTINUOUS_STEPS),
    "monitoring": Definition(monitoring.NAME, monitoring.monitoring_pipeline, monitoring.STEPS),
    "sweep": Definition(sweep.NAME, sweep.sweep_pipeline, sweep.STEPS),
    "backfill": Definition(backfill.NAME, backfill.backfill_pipeline, backfill.STEPS),
}


def pipeline_named(name: str) -> Definition:
    """A pipeline.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PIPELINES:
        raise ConfigError(f"no pipeline {name!r}{nearest(name, list(PIPELINES))}")
    return PIPELINES[name]


def check_parameters(graph: Any, given: Mapping[str, Any]) -> None:
    """Refuse parameters that a pipeline does not have, or of another type than it has.

    Raises:
        ConfigError: with the nearest name, or the type asked for.
    """
    kinds = {"String": str, "Integer": int, "List[String]": list}
    known = graph.component_spec.inputs
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"unknown parameter {name}{nearest(name, list(known))}")
        if not isinstance(value, kinds[known[name].type]):
            raise ConfigError(f"parameter {name} = {value!r} is no {known[name].type}")


def compile_to(config: Config, out: Path, profile: Profile | None = None, pipeline: str = "training") -> Any:
    """Write the IR YAML of a pipeline, its parameters defaulting to `config`, its tasks settled by `profile`.

    Returns:
        The graph that was written, for `check_parameters`.

    Raises:
        ConfigError: no such pipeline, or the profile names a step that no pipeline has.
    """
    from kfp import compiler

    definition = pipeline_named(pipeline)
    known = sorted({step for one in PIPELINES.values() for step in one.steps})
    for step in profile.steps if profile else ():
        if step not in known:
            raise ConfigError(f"profile: steps.{step} is no step{nearest(step, known)}")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    graph = definition.build(config, profile)
    compiler.Compiler().compile(graph, str(out))
    return graph
