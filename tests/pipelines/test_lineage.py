"""A registered model carries what its run read and how it was configured, from the step that gathers it."""

from tests.registry.conftest import model
from uniscale.artifacts import content_hash, read_json, write_json
from uniscale.cli.steps import call
from uniscale.config import load_config
from uniscale.registry import Registry


def test_the_baseline_that_takes_the_seat_carries_the_lineage_of_its_run(tmp_path, empty_registry) -> None:
    config = load_config(None, ["seed=5", "train.epochs=9"])
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "events.csv").write_text("a,b\n")
    sections = ("data", "simulation", "ingest", "features", "samples", "model", "train", "gate")
    call(
        "lineage",
        seed=5,
        **{name: getattr(config, name) for name in sections},
        data_version="a1.dir",
        clean=tmp_path / "clean",
        made_of=tmp_path / "made_of",
    )
    folder, _ = model(tmp_path / "baseline")
    where = {"registry": str(empty_registry(tmp_path / "registry")), "name": "ranker"}
    number = call("seat", **where, version="none", run_id="r1", made_of=tmp_path / "made_of", model=folder)
    champion = Registry(tmp_path / "registry", "ranker").champion()
    assert champion is not None and champion.number == number and champion.run_id == "r1-baseline"
    assert (champion.data_hash, champion.data_version) == (content_hash(tmp_path / "clean"), "a1.dir")
    kept = read_json(champion.config)
    assert (kept["seed"], kept["train"]["epochs"]) == (5, 9)
    assert set(kept) == {"seed", *sections}


def test_a_candidate_carries_it_too_promoted_or_rejected_and_a_run_registers_once(tmp_path, empty_registry) -> None:
    where = {"registry": str(empty_registry(tmp_path / "registry")), "name": "ranker"}
    write_json(
        tmp_path / "made_of" / "lineage.json",
        {"data_hash": "d1", "data_version": "", "source": "s1", "config": {"seed": 5}},
    )
    for step, run_id, verdict in (("promote", "r1", "promote"), ("reject", "r2", "reject")):
        folder, decision = model(tmp_path / run_id, weights=run_id, verdict=verdict)
        judged = {"made_of": tmp_path / "made_of", "measured": folder.parent, "decision": decision.parent}
        numbers = {call(step, **where, run_id=run_id, **judged) for _ in range(2)}
        assert len(numbers) == 1
    store = Registry(tmp_path / "registry", "ranker")
    first, second = store.versions()
    assert store.champion() == first and second.verdict == "reject"
    assert {(version.data_hash, version.source_hash) for version in (first, second)} == {("d1", "s1")}
    assert read_json(second.config) == {"seed": 5}
