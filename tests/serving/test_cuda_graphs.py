"""Requests padded to a recorded shape score as they are, and a recorded graph scores as the model does."""

import numpy as np
import pytest
import torch

from models.batches import Batch, to_batch
from models.zoo import ZOO
from serving.cuda_graphs import SMALLEST, packed, room_for, widened
from serving.served_model import ServedModel
from tests.models.small import small_model, small_samples, some_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return some_rows(small_samples(tmp_path_factory.mktemp("samples") / "rows"))


def requests(data, count):
    """Batches of one search request."""
    rows, vectors = data
    return [to_batch(rows.take(np.array([r])), vectors) for r in np.flatnonzero(rows.domain == 0)[:count]]


def built(name):
    model = small_model(name)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.inputs.tables.weight[0] = 0.0
    return model.eval().search_export()


@pytest.mark.parametrize("name", ZOO)
def test_padding_changes_no_score(name, data):
    model = built(name)
    for batch in requests(data, 3):
        wide = widened(batch, batch.candidates + 5, batch.behaviour_mask.shape[1] + 3)
        assert wide.candidates == batch.candidates + 5
        scores = model.score(wide)[: batch.candidates]
        torch.testing.assert_close(scores, model.score(batch), rtol=1e-5, atol=1e-6)


def test_a_packed_batch_is_the_batch_in_one_buffer(data):
    (batch,) = requests(data, 1)
    buffer, same = packed(batch)
    for name in Batch.__dataclass_fields__:
        value, view = getattr(batch, name), getattr(same, name)
        assert torch.equal(value, view)
        assert value.dtype == view.dtype
        if view.numel():
            assert view.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()


@pytest.mark.parametrize(("count", "room"), [(1, SMALLEST), (16, 16), (17, 32), (200, 256), (2000, 2048)])
def test_shapes_are_powers_of_two(count, room):
    assert room_for(count) == room


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ZOO)
def test_a_recorded_graph_scores_as_the_model_does(name, precision, data):
    model = built(name)
    served = ServedModel(model.search_export(), torch.device("cuda"))
    served.precision = precision
    tolerance = 1e-5 if precision is torch.float32 else 4e-3
    batches = requests(data, 6)
    for batch in (*batches, *reversed(batches)):  # graphs in any order, of buffers that held another request
        torch.testing.assert_close(served.score(batch), model.score(batch), rtol=1e-3, atol=tolerance)


@pytest.mark.gpu
def test_models_on_one_device_do_not_mix_up_their_requests(data):
    models = [built("onetrans"), built("est")]
    served = [ServedModel(model.search_export(), torch.device("cuda")) for model in models]
    for batch in requests(data, 4):
        for one, model in zip(served, models, strict=True):
            torch.testing.assert_close(one.score(batch), model.score(batch), rtol=1e-3, atol=1e-5)
