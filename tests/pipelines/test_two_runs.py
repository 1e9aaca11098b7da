"""Runs that follow one another: the second meets the first's champion, the cache no other source's results."""

import pytest
from kfp import dsl, local

from models.views import training_days, write_view
from tests.models.small import SMALL
from tests.sample_folder import write_samples
from uniscale.artifacts import PACKAGES, read_json, source_hash, write_json
from uniscale.cli.steps import call
from uniscale.config import load_config, override
from uniscale.registry import Registry
from uniscale.samples import SampleSpec

CONFIG = load_config(
    None,
    [
        *SMALL,
        "model.name=dlrm_mlp",
        "train.samples=search",
        "train.epochs=1",
        "gate.bootstrap_resamples=100",
        "gate.floors={}",
        "gate.ceilings={}",
        "gate.non_inferiority={}",
        "gate.slices={by: [], tolerance: 0.02, min_positives: 100}",
    ],
)


def run(config, samples, root, run_id):
    """The steps of a run from its samples on, wired as the pipeline wires them; gives its decision."""
    where, folder = {"registry": str(root / "registry"), "name": "ranker"}, root / run_id
    settings = {"seed": config.seed, "settings": config.train, "model_sizes": config.model, "work": str(root / "work")}
    made_of, raw = folder / "made_of", folder / "raw"
    write_json(made_of / "lineage.json", {"data_hash": run_id, "data_version": "", "source": "s", "config": {}})
    version = call("resolve", **where, requested="current")
    call("champion", **settings, **where, version=version, rows=samples, model=folder / "champion")
    call("seat", **where, version=version, run_id=run_id, made_of=made_of, model=folder / "champion")
    call("train", **settings, rows=samples, model=folder / "candidate")
    models = {"rows": samples, "candidate": folder / "candidate", "champion": folder / "champion"}
    measured = folder / "measured"
    call("evaluate", seed=config.seed, gate=config.gate, train=config.train, raw=raw, **models, measured=measured)
    for name in ("drifted", "costs"):
        write_json(folder / name / "measures.json", {})
    judged = {"measured": measured, "drifted": folder / "drifted", "costs": folder / "costs"}
    verdict = call("gate", seed=config.seed, rules=config.gate, **judged, decision=folder / "decision")
    record = {"run_id": run_id, "made_of": made_of, "measured": measured, "decision": folder / "decision"}
    call(verdict, **where, **record)
    return read_json(folder / "decision" / "decision.json")


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Samples of an earlier and of a later span of days, of one log."""
    root = tmp_path_factory.mktemp("days")
    whole = write_samples(root / "whole", requests_per_day=40, days=8, items=40)
    manifest, names = read_json(whole / "manifest.json"), training_days(whole)
    spans = {
        "earlier": (names[:2], names[2], names[3:5]),
        "later": (names, *[manifest["splits"][k] for k in ("valid", "test")]),
    }
    for span, (train, valid, test) in spans.items():
        write_view(whole, train[0], SampleSpec.load(whole), root / span)
        splits = {
            "train": [train[0], train[-1]],
            "valid": [valid] * 2 if isinstance(valid, str) else valid,
            "test": test,
        }
        write_json(root / span / "manifest.json", {**manifest, "splits": splits})
    return root / "earlier", root / "later"


def test_the_second_run_decides_against_the_first_ones_champion(days, tmp_path, empty_registry):
    earlier, later = days
    empty_registry(tmp_path / "registry")
    easy = override(CONFIG, ["gate.require_superiority=false"])
    first = run(easy, earlier, tmp_path, "r1")
    store = Registry(tmp_path / "registry", "ranker")
    seated = store.champion()
    assert first["verdict"] == "promote" and seated.run_id == "r1"
    second = run(override(CONFIG, ["train.learning_rate=0.002"]), later, tmp_path, "r2")
    assert second["champion"]["hash"] == seated.content_hash
    assert (tmp_path / "r2" / "champion" / "model.safetensors").read_bytes() == seated.folder.joinpath(
        "model.safetensors"
    ).read_bytes()
    judged = {gate["name"]: gate for gate in second["gates"]}
    assert judged["superiority:click.gauc"]["numbers"]["value"] is not None  # computed, on rows of the later days
    promoted = second["verdict"] == "promote"
    assert store.champion().run_id == ("r2" if promoted else "r1")
    assert [version.run_id for version in store.versions()] == ["r1-baseline", "r1", "r2"]
    assert store.version("3").data_hash == "r2"


def counted(image, note, out):
    """A pipeline of one step that leaves a line each time it really runs."""

    def body(note: str) -> str:
        with open(note, "a") as file:
            file.write("ran\n")
        return "done"

    work = dsl.component(body, base_image=image, install_kfp_package=False)

    @dsl.pipeline(name="small")
    def small(note: str) -> None:
        work(note=note)

    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(out / "out"),
        enable_caching=True,
        cache_root=str(out / "cache"),
    )
    small(note=str(note))
    return note.read_text().count("ran")


def test_a_run_again_is_taken_from_the_cache_unless_the_source_has_changed(tmp_path):
    note = tmp_path / "note"
    runs = [counted(f"uniscale/python:{tag}", note, tmp_path) for tag in ("aaa", "aaa", "bbb", "aaa")]
    assert runs == [1, 1, 2, 2]


def test_the_image_follows_every_package_of_the_source(tmp_path, monkeypatch):
    import uniscale.artifacts as artifacts

    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "one.py").write_text("x = 1\n")
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "uniscale" / "artifacts.py"))
    seen = {source_hash()}
    for package in PACKAGES:
        (tmp_path / package / "one.py").write_text("x = 2\n")
        seen.add(source_hash())
    assert len(seen) == len(PACKAGES) + 1
    (tmp_path / "notes.py").write_text("no part of it")
    assert source_hash() in seen
