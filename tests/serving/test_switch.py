"""Models change under load without a lost or mixed answer; what fails its probe is refused and the old one stays."""

import asyncio
import gc
import os
import shutil
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from models.checkpoint import load_model, save_model
from models.zoo import build_model
from serving import probe
from serving.export import export
from serving.follow import point_at_champion
from serving.loader import load_checked
from serving.routing import Routing, Target, Variant
from serving.schemas import RankRequest
from serving.served_model import ServedModel
from serving.switch import Switch
from tests.sample_folder import SPEC
from tests.serving.test_ranker import CONFIG, engine, make_ranker  # noqa: F401
from uniscale.artifacts import content_hash, read_json, write_json
from uniscale.errors import RegistryError, ServingError
from uniscale.registry import Registry
from uniscale.samples import Feature

TOLERANCE = CONFIG.serving.probe_tolerance


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Three versions, exported; 1 and 2 are what the deployment of `make_ranker` declares."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("exports")
    for version in "123":
        save_model(build_model("dlrm_mlp", SPEC, CONFIG.model, seed=int(version)), folder / f"full-{version}", 0)
        export(folder / f"full-{version}", folder / "models" / version)
    return folder


def load_from(folder):
    return lambda target: load_checked(target, folder, SPEC, torch.device("cpu"), TOLERANCE)


def routing_of(exports, **variants) -> Routing:
    share = 1 / len(variants)
    return Routing(
        variants={
            name: Variant(target=Target.of(version, exports / "models" / version), weight=share)
            for name, version in variants.items()
        }
    )


@pytest.fixture
def changing(exports, tmp_path):
    """A switch that answers with version 1 and follows a file."""
    path = tmp_path / "routing.json"
    return Switch(routing_of(exports, champion="1"), load_from(exports), path), path


def test_a_new_version_takes_over_and_the_old_one_comes_back_without_loading(exports, tmp_path):
    loads = []

    def load(target):
        loads.append(target.version)
        return load_from(exports)(target)

    path, first = tmp_path / "routing.json", routing_of(exports, champion="1")
    switch = Switch(first, load, path)
    switch.poll()
    assert switch.current.routing == first  # no file changes nothing
    before = switch.current
    routing_of(exports, champion="2").save(path)
    switch.poll()
    assert switch.current.routing.versions == {"champion": "2"} and switch.previous is before
    first.save(path)
    switch.poll()
    assert switch.current.models["1"] is before.models["1"] and loads == ["1", "2"]


class Met:
    """A model that the shapes of requests matter to."""

    def __init__(self):
        self.shapes = set()

    def meet(self, shapes):
        self.shapes |= set(shapes)


def test_a_new_version_meets_the_shapes_that_those_in_force_have_answered_before_it_answers(exports, tmp_path):
    models = {version: Met() for version in "123"}
    path = tmp_path / "routing.json"
    switch = Switch(routing_of(exports, champion="1", candidate="2"), lambda target: models[target.version], path)
    models["1"].shapes, models["2"].shapes = {(16, 16), (256, 64)}, {(2048, 16)}
    routing_of(exports, champion="1", candidate="3").save(path)
    before = models["3"].meet
    models["3"].meet = lambda shapes: before(shapes if switch.current.routing.versions["candidate"] == "2" else ())
    switch.poll()
    assert switch.refused is None and models["3"].shapes == {(16, 16), (256, 64), (2048, 16)}
    models["3"].shapes.add((512, 16))
    models["2"].meet = None  # it is loaded: a rollback waits for nothing
    routing_of(exports, champion="1", candidate="2").save(path)
    switch.poll()
    assert switch.refused is None and switch.current.models["2"] is models["2"]


def test_the_file_is_read_again_only_when_it_was_written(changing, exports):
    switch, path = changing
    routing_of(exports, champion="2").save(path)
    switch.poll()
    now = switch.current
    switch.poll()
    assert switch.current is now


def broken(exports, folder, name):
    """Version 9 in a folder with one thing wrong, and what the refusal says."""
    export(exports / "full-3", folder / "9")
    weights = folder / "9" / "model.safetensors"
    tensors = load_file(weights)
    matrix = next(key for key, values in tensors.items() if values.ndim == 2 and values.dtype == np.float16)
    if name == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
        return "cannot be read"
    if name == "NaN":
        save_file({key: np.full_like(v, np.nan) if v.dtype.kind == "f" else v for key, v in tensors.items()}, weights)
        return "not finite"
    if name == "other weights":
        save_file({key: v[::-1].copy() if key == matrix else v * 2 for key, v in tensors.items()}, weights)
        return "on record"
    if name == "other spec":
        card = read_json(folder / "9" / "model.json")
        spec = replace(SPEC, features=(*SPEC.features, Feature("user_age", "user", "id", "request", "age")))
        save_model(build_model("dlrm_mlp", spec, CONFIG.model, seed=0), folder / "full", 0)
        assert card["spec"] != spec.as_json()
        (folder / "9" / "probe.json").unlink()
        for file in ("model.json", "model.safetensors"):
            os.replace(folder / "full" / file, folder / "9" / file)
        return "user_age"
    (folder / "9" / "model.json").unlink()
    return "model.json"


@pytest.mark.parametrize("name", ["truncated", "NaN", "other weights", "other spec", "no card"])
def test_a_version_that_fails_is_refused_and_reported_and_the_old_one_stays(changing, exports, tmp_path, name):
    switch, path = changing
    counted = []
    switch._count = counted.append
    says = broken(exports, tmp_path, name)
    before = switch.current
    routing_of(exports, champion="1").pointed("champion", Target.of("9", tmp_path / "9")).save(path)
    switch.poll()
    assert switch.current is before and switch.previous is None and counted == ["refused"]
    assert says in switch.state()["routing"]["refused"]
    routing_of(exports, champion="2").save(path)
    switch.poll()
    assert switch.current.routing.versions == {"champion": "2"} and switch.state()["routing"]["refused"] is None


def test_a_folder_that_changed_after_it_was_named_is_refused(changing, exports, tmp_path):
    switch, path = changing
    export(exports / "full-3", tmp_path / "3")
    target = Target.of("3", tmp_path / "3")
    export(exports / "full-2", tmp_path / "2")
    os.replace(tmp_path / "2" / "model.safetensors", tmp_path / "3" / "model.safetensors")
    routing_of(exports, champion="1").pointed("champion", target).save(path)
    switch.poll()
    assert target.content_hash in switch.refused


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ('{"variants": {}}', "variants"),
        ('{"variants": {"a": {"target": {"version": "../1", "folder": "x"}, "weight": 1}}}', "version"),
        ('{"variants": {"a": {"target": {"version": "1", "folder": "x"}, "weight": 0.5}}}', "sum to 0.5"),
        ('{"variants": {"a": {"target": {"version": "1", "folder": "nowhere"}, "weight": 1}}}', "nowhere"),
    ],
)
def test_a_routing_that_is_none_is_refused(changing, content, says):
    switch, path = changing
    path.write_text(content)
    switch.poll()
    assert says in switch.refused and switch.current.routing.versions == {"champion": "1"}


def test_a_place_that_cannot_be_read_is_reported_and_looked_at_again(exports, tmp_path):
    switch = Switch(routing_of(exports, champion="1"), load_from(exports), tmp_path / "file" / "routing.json")
    (tmp_path / "file").write_text("not a folder")
    switch.poll()
    assert "NotADirectoryError" in switch.refused
    (tmp_path / "file").unlink()
    routing_of(exports, champion="2").save(tmp_path / "file" / "routing.json")
    switch.poll()
    assert switch.refused is None and switch.current.routing.versions == {"champion": "2"}


def test_one_version_is_one_model():
    one, two = (Variant(target=Target(version="1", folder=folder), weight=0.5) for folder in "ab")
    with pytest.raises(ValueError, match="names two models"):
        Routing(variants={"a": one, "b": two})
    with pytest.raises(ValueError, match="at once"):
        Routing(variants={"a": one, "b": one}, shadows={"a": one.target})


def test_models_that_nothing_points_at_are_freed_without_the_collector(changing, exports):
    """The service freezes what it loaded, so a cycle would hold a model for the life of the process."""
    switch, path = changing
    old = weakref.ref(switch.current.models["1"])
    gc.disable()
    try:
        for version in "23":
            routing_of(exports, champion=version).save(path)
            switch.poll()
        assert old() is None
    finally:
        gc.enable()


def test_exports_are_held_to_their_record_and_registry_folders_to_themselves(exports):
    full = load_checked(Target.of("1", exports / "full-1"), exports, SPEC, torch.device("cpu"), TOLERANCE)
    assert probe.check(exports / "full-1", full, SPEC, 1e-6) <= 1e-6
    half = load_checked(Target.of("1", exports / "models" / "1"), exports, SPEC, torch.device("cpu"), TOLERANCE)
    assert probe.check(exports / "models" / "1", half, SPEC, 1e-6) <= 1e-6
    recorded = read_json(exports / "models" / "1" / "probe.json")
    assert 0 < np.abs(np.subtract(recorded["scores"], recorded["float32"])).max() <= TOLERANCE
    with pytest.raises(ServingError, match="on record"):
        probe.check(exports / "models" / "1", ServedModel(load_model(exports / "full-2")), SPEC, TOLERANCE)


def test_the_probe_is_the_same_everywhere():
    """Made from the spec by a fixed seed: a record written by one process is read by another."""
    one, two = probe.probe_batch(SPEC), probe.probe_batch(SPEC)
    assert torch.equal(one.candidate_ids, two.candidate_ids) and one.requests == 4 and one.candidates == 64
    assert one.domain.tolist() == [0] * 4 and bool((one.behaviour_age >= 1).all())


def test_under_load_every_answer_is_one_versions_whole_answer(engine, exports, tmp_path):  # noqa: F811
    """Versions are swapped all the time; no request fails, and scores are those of the version named."""
    ranker, _ = make_ranker(engine, tmp_path / "log", max_concurrency=64)
    path = tmp_path / "routing.json"
    ranker.switch = Switch(routing_of(exports, champion="1"), load_from(exports), path, 0.001)
    request = RankRequest(user_id="u1", item_ids=[f"i{item}" for item in range(1, 40)])

    async def scores():
        answer = await ranker.rank(request)
        assert answer.status == 200 and answer.body["fallback"] is None
        return answer.body["version"], tuple(item["score"] for item in answer.body["items"])

    expected = {}
    for version in "123":
        routing_of(exports, champion=version).save(path)
        ranker.switch.poll()
        expected[version] = asyncio.run(scores())[1]
    assert len(set(expected.values())) == 3
    stop = threading.Event()

    def swapping():
        number = 0
        while not stop.is_set():
            number += 1
            routing_of(exports, champion="123"[number % 3]).save(path)
            ranker.switch.poll()

    thread = threading.Thread(target=swapping)
    thread.start()

    async def load():
        answers = []
        while len(answers) < 160 or len({version for version, _ in answers}) < 3:
            answers += await asyncio.gather(*(scores() for _ in range(8)))
        return answers

    answers = asyncio.run(load())
    stop.set()
    thread.join()
    ranker.close()
    assert {version for version, _ in answers} == {"1", "2", "3"}

    def nearest(found):  # a version loaded again may compute in another precision, which its probe allows
        return min(expected, key=lambda version: max(abs(a - b) for a, b in zip(found, expected[version], strict=True)))

    assert all(nearest(found) == version for version, found in answers)


@pytest.fixture
def registry(exports, tmp_path):
    """Two registered versions, written as the registry's own log: following it takes no MLflow."""
    made = Registry(tmp_path / "registry")
    for version in "12":
        shutil.copytree(exports / f"full-{version}", made.folder / "models" / version / "model")
        lineage = {"run_id": "r", "data_hash": "", "source_hash": "", "verdict": None, "key": version}
        details = lineage | {"content_hash": content_hash(exports / f"full-{version}")}
        made.log.append("register", version, "no gate record", details=details)
    return made


def test_the_champions_seat_is_followed_and_so_is_a_rollback(registry, exports, tmp_path):
    path, folder = tmp_path / "routing.json", tmp_path / "exports"
    routing_of(exports, champion="3", candidate="1").save(path)

    def step():
        return point_at_champion(registry, None, path, folder, "champion")

    assert step() is None  # nobody is champion
    registry.log.append("promote", "2", "test")
    assert step() == "2" and step() is None
    assert Routing.load(path).versions == {"champion": "2", "candidate": "1"}
    switch = Switch(routing_of(exports, champion="3"), load_from(exports), path)
    switch.poll()
    assert switch.refused is None and switch.current.routing.versions["champion"] == "2"
    registry.log.append("promote", "1", "test", previous="2")
    assert step() == "1"
    registry.log.append("rollback", "2", "worse", previous="1")
    assert step() == "2"
    with pytest.raises(ServingError, match="no variant 'other'"):
        point_at_champion(registry, None, path, folder, "other")


def test_a_registry_whose_files_changed_is_not_followed(registry, exports, tmp_path):
    registry.log.append("promote", "2", "test")
    write_json(registry.version("2").folder / "model.json", {})
    routing_of(exports, champion="3").save(tmp_path / "routing.json")
    with pytest.raises(RegistryError, match="not those that were registered"):
        point_at_champion(registry, None, tmp_path / "routing.json", tmp_path / "exports", "champion")
    assert not list((tmp_path / "exports").glob("ranker-*"))


def test_shares_change_in_the_file_and_at_once_and_models_stay(exports, tmp_path):
    loads = []

    def load(target):
        loads.append(target.version)
        return load_from(exports)(target)

    path = tmp_path / "routing.json"
    switch = Switch(routing_of(exports, champion="1", candidate="2"), load, path)
    assert switch.share({"candidate": 0.05, "champion": 0.95}).weights == {"champion": 0.95, "candidate": 0.05}
    both = {"champion": 0.95, "candidate": 0.05}
    assert switch.share(both, "interleave").mode == switch.share(both).mode == "interleave"
    assert switch.share(both, "split").mode == "split"
    assert list(Routing.load(path).weights) == ["champion", "candidate"]  # the order users are assigned by
    assert loads == ["1", "2"]
    for wrong in ({"champion": 1.0}, {"champion": 0.5, "candidate": 0.6}, {"champion": 2.0, "candidate": -1.0}):
        with pytest.raises(ServingError):
            switch.share(wrong)
    assert switch.current.routing.weights == {"champion": 0.95, "candidate": 0.05}
    with pytest.raises(ServingError, match="no routing file"):
        Switch(routing_of(exports, champion="1"), load).share({"champion": 1.0})


def test_shares_do_not_undo_a_change_of_models_that_nobody_has_looked_at_yet(exports, tmp_path):
    path = tmp_path / "routing.json"
    switch = Switch(routing_of(exports, champion="1", candidate="2"), load_from(exports), path)
    routing_of(exports, champion="3", candidate="2").save(path)
    routing = switch.share({"champion": 0.9, "candidate": 0.1})
    assert routing == Routing.load(path) and routing.versions == {"champion": "3", "candidate": "2"}
    assert routing.weights == {"champion": 0.9, "candidate": 0.1}
