"""What MLflow is told of a registered version: its gates as tags, its training as parameters and metrics of a run."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniscale.artifacts import read_json

MEASURED = ("samples_per_second", "mfu", "mfu_of_passes", "forward_flops_per_sample")


@dataclass(frozen=True)
class TrainingRun:
    """The training of a model folder: parameters, and metrics as (name, step, value)."""

    parameters: dict[str, str]
    metrics: list[tuple[str, int, float]]

    @classmethod
    def of(cls, model: Path) -> "TrainingRun | None":
        """From `model.json` and `curves.json`; None for a folder without curves, which training did not write."""
        if not (Path(model) / "curves.json").exists():
            return None
        card, curves = read_json(Path(model) / "model.json"), read_json(Path(model) / "curves.json")
        report = card["training"]
        parameters = {"model": card["name"], "seed": str(card["seed"]), "days": " to ".join(report["days"])}
        parameters |= {name: str(report[name]) for name in ("subset", "device", "processes", "precision")}
        return cls(parameters, [point for point in _metrics(report, curves) if math.isfinite(point[2])])


def _metrics(report: Mapping[str, Any], curves: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    """Loss along the steps, validation at the epochs' last steps, and at the end what the training cost."""
    for point in curves["steps"]:
        yield from ((f"loss.{task}", point["step"], value) for task, value in point.items() if task != "step")
    for epoch in curves["epochs"]:
        for task, measures in epoch.items():
            if isinstance(measures, dict):
                known = ((name, value) for name, value in measures.items() if value is not None)
                yield from ((f"validation.{task}.{name}", epoch["step"], value) for name, value in known)
    yield from ((name, report["steps"], float(report[name])) for name in MEASURED)
    yield from ((f"seconds.{phase}", report["steps"], value) for phase, value in report["seconds"].items())


def gate_tags(record: Any) -> dict[str, str]:
    """Verdicts and numbers of the gates that are not slices, as tags of the version."""
    tags = {}
    for gate in record["gates"] if record else []:
        value = gate["numbers"].get("value")
        if not gate["name"].startswith("slice:") and value is not None:
            tags["gate." + plain(gate["name"].replace(":", "."))] = f"{gate['verdict']} {value:.6g}"
    return tags


def plain(text: str) -> str:
    """A text as part of a tag's or a file's name."""
    return re.sub(r"[^\w.-]", "_", text)
