"""What a monitoring run saw and decided, gathered from its steps, for its summary and for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring.skew import skewed
from uniscale.artifacts import read_json

Table = tuple[str, list[str], list[list[str]]]


def facts(drifted: Path, compared: Path, found: Path, choice: Path) -> dict[str, Any]:
    """Drift, skew, experiments and the retraining policy's choice, as their steps wrote them."""
    drift = read_json(Path(drifted) / "drift.json")
    return {
        "drift": {key: drift[key] for key in ("windows", "verdict", "reason", "drifted", "late_labels", "measures")},
        "skew": read_json(Path(compared) / "skew.json"),
        "experiments": read_json(Path(found) / "experiments.json"),
        "retraining": read_json(Path(choice) / "choice.json"),
    }


def tables(seen: Mapping[str, Any]) -> list[Table]:
    """The same as titled tables."""
    drift, skew, choice = seen["drift"], seen["skew"], seen["retraining"]
    why_not, compared = skew["why_not"], f"{skew['requests']:,} requests, {skew['items']:,} items"
    experiments = [[name, one["verdict"], one["reason"]] for name, one in seen["experiments"].items()]
    first, last = drift["windows"]["current"]
    return [
        (
            f"Drift, {first} to {last}",
            ["", ""],
            [
                ["verdict", drift["verdict"]],
                ["why", drift["reason"]],
                *(["noticed", one] for one in drift["drifted"][:5]),
            ],
        ),
        (
            "Features as served against the samples",
            ["", ""],
            [
                ["compared", f"nothing: {why_not}" if why_not else compared],
                *(["skewed", one] for one in skewed(skew)[:5]),
            ],
        ),
        ("Running experiments", ["experiment", "verdict", "why"], experiments or [["none", "", ""]]),
        (
            "Retraining",
            ["", ""],
            [
                ["choice", "train" if choice["train"] else "wait"],
                ["why", choice["why"]],
                ["new mature days", ", ".join(choice["new_days"]) or "none"],
            ],
        ),
    ]
