"""A registered model carries what its run read and how it was configured, from the step that gathers it."""

from tests.registry.conftest import model
from uniscale.artifacts import content_hash, read_json
from uniscale.cli.steps import call
from uniscale.config import load_config
from uniscale.registry import Registry


def test_the_baseline_that_takes_the_seat_carries_the_lineage_of_its_run(tmp_path) -> None:
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
    where = {"registry": str(tmp_path / "registry"), "name": "ranker"}
    number = call("seat", **where, version="none", run_id="r1", made_of=tmp_path / "made_of", model=folder)
    champion = Registry(tmp_path / "registry", "ranker").champion()
    assert champion is not None and champion.number == number and champion.run_id == "r1-baseline"
    assert (champion.data_hash, champion.data_version) == (content_hash(tmp_path / "clean"), "a1.dir")
    kept = read_json(champion.config)
    assert (kept["seed"], kept["train"]["epochs"]) == (5, 9)
    assert set(kept) == {"seed", *sections}
