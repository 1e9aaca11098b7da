"""A registry whose database exists already, and models with gate records to put into it."""

import pytest

from uniscale.artifacts import write_json
from uniscale.registry import Registry


def model(folder, weights="w", champion=None, verdict="promote"):
    """A model folder and a gate record that judged it against `champion` (a Version, or None)."""
    write_json(folder / "model" / "model.json", {"name": "hhsft"})
    (folder / "model" / "model.safetensors").write_text(weights)
    record = {
        "verdict": verdict,
        "failed": [] if verdict == "promote" else ["floor:click.auc"],
        "champion": {"name": "dlrm_mlp", "hash": champion.content_hash} if champion else None,
        "gates": [
            {
                "name": "floor:click.auc",
                "verdict": "pass",
                "why": "0.7 reaches the floor of 0.6",
                "numbers": {"value": 0.7, "bound": 0.6},
            }
        ],
    }
    write_json(folder / "decision.json", record)
    return folder / "model", folder / "decision.json"


@pytest.fixture
def store(tmp_path, empty_registry):
    return Registry(empty_registry(tmp_path / "registry"), "ranker")


def seat(store, tmp_path, name="first"):
    folder, record = model(tmp_path / name, weights=name, champion=store.champion())
    return store.promote(store.register(folder, run_id=name, decision=record).number)
