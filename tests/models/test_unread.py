"""A model that leaves feature views unread sees the same batch from samples and from a service of more features."""

from dataclasses import fields, replace

import pytest
import torch

from models.batches import narrowed, to_batch
from models.checkpoint import load_model
from models.data import Reader, read_rows, row_files
from models.rows import ItemVectors
from models.train import train
from models.zoo import spec_of
from serving.served_model import ServedModel
from tests.sample_folder import SPEC, write_samples
from uniscale.config import load_config
from uniscale.samples import SampleSpec

VIEWS = {"user_gender": "user_profile", "user_clicks_7d": "user_statistics", "query_clicks_7d": "query_statistics"}
WHOLE = replace(
    SPEC,
    features=tuple(
        replace(f, view="user_behaviours" if f.level == "behaviour" else VIEWS.get(f.name, "")) for f in SPEC.features
    ),
)
CONFIG = load_config(
    overrides=[
        "model.unread={dlrm_mlp: [user_behaviours, user_statistics]}",
        "model.table_rows=64",
        "model.embedding_dim=4",
        "train.epochs=1",
    ]
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = write_samples(tmp_path_factory.mktemp("samples"), requests_per_day=6, days=4)
    WHOLE.save(folder)
    return folder


def batch_of(samples, spec):
    rows = read_rows(row_files(samples, "train", "search", spec), spec, "search")
    return to_batch(rows, ItemVectors.load(samples, spec))


@pytest.mark.parametrize("unread", [(), ("user_profile",), ("user_statistics", "user_behaviours"), WHOLE.views])
def test_a_narrowed_batch_is_what_the_samples_give_without_the_views(samples, unread):
    wanted = WHOLE.without(unread)
    given, expected = narrowed(batch_of(samples, WHOLE), WHOLE, wanted), batch_of(samples, wanted)
    for field in fields(expected):
        torch.testing.assert_close(
            getattr(given, field.name), getattr(expected, field.name), rtol=0, atol=0, equal_nan=True, msg=field.name
        )


def test_only_the_named_entry_leaves_views_unread(samples):
    assert spec_of("hhsft", WHOLE, CONFIG.model) == WHOLE
    read = spec_of("dlrm_mlp", WHOLE, CONFIG.model)
    assert set(WHOLE.views) - set(read.views) == {"user_behaviours", "user_statistics"}
    assert WHOLE.covers(read) and not read.covers(WHOLE) and not WHOLE.covers(replace(read, text_dim=1))


def test_a_trained_model_scores_a_services_batches_as_its_own(samples, tmp_path):
    train(CONFIG, samples, tmp_path / "model", "dlrm_mlp", "search", tmp_path / "work")
    model = load_model(tmp_path / "model")
    assert (
        model.spec
        == WHOLE.without({"user_behaviours", "user_statistics"})
        == SampleSpec.from_json(model.spec.as_json())
    )
    assert Reader(samples, "train", "search", 64, 0).spec == WHOLE
    own = model.score(batch_of(samples, model.spec))
    served = ServedModel(model).given(WHOLE).score(batch_of(samples, WHOLE))
    torch.testing.assert_close(served, own.float(), rtol=0, atol=1e-6)
