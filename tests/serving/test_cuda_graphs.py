"""Requests padded to a recorded shape score as they are, and a recorded graph scores as the model does."""

import numpy as np
import pytest
import torch

from models.batches import Batch, to_batch
from models.zoo import ZOO
from serving.cuda_graphs import SMALLEST, apart, packed, room_for, shape_of, widened
from serving.precision import choose
from serving.served_model import ServedModel, lowered
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


@pytest.mark.parametrize("name", ZOO)
def test_requests_apart_score_as_they_do_together(name, data):
    rows, vectors = data
    model = built(name)
    together = to_batch(rows.take(np.flatnonzero(rows.domain == 0)[:5]), vectors)
    parts = list(apart(together))
    assert [part.requests for part in parts] == [1] * 5
    torch.testing.assert_close(
        torch.cat([model.score(part) for part in parts]), model.score(together), rtol=1e-5, atol=1e-6
    )


def test_lowered_weights_compute_what_autocast_makes_of_the_others_and_share_the_rest(data):
    (batch,) = requests(data, 1)
    model = built("hhsft")
    lower = lowered(model, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lower.score(batch), model.score(batch))
    assert lower.inputs.tables.weight is model.inputs.tables.weight
    assert {p.dtype for p in lower.network.heads.parameters()} == {torch.bfloat16}
    assert all(p.dtype is torch.float32 for p in model.parameters())


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


def test_a_model_meets_shapes_by_requests_of_them(monkeypatch):
    served = ServedModel(built("hhsft"))
    longest, scored = served.model.spec.max_behaviours, []
    monkeypatch.setattr(served, "score", lambda batch: scored.append((shape_of(batch), served.model.score(batch))))
    served.meet({(64, 16), (16, 16), (16, 1024)})
    assert [shape for shape, _ in scored] == [(16, 16), (16, room_for(longest)), (64, 16)]
    assert all(torch.isfinite(scores).all() for _, scores in scored)


@pytest.mark.gpu
def test_a_shape_that_was_met_is_not_recorded_again(data):
    first, second = (ServedModel(built(name), torch.device("cuda")) for name in ("dlrm_mlp", "hhsft"))
    batches = requests(data, 6)
    for batch in batches:
        first.score(batch)
    second.meet(first.shapes)
    recorded = set(second._graphs[torch.float32]._recorded)
    for batch in batches:
        second.score(batch)
    assert recorded == set(second._graphs[torch.float32]._recorded)


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


@pytest.mark.gpu
def test_what_is_chosen_by_measurement_is_recorded(data):
    rows, vectors = data
    several = to_batch(rows.take(np.flatnonzero(rows.domain == 0)[:4]), vectors)
    model = built("hhsft")
    served = ServedModel(model.search_export(), torch.device("cuda"))
    choose(served, several, tolerance=4e-3)
    assert set(served.measured) == {"float32", "float16", "bfloat16"}
    assert list(served._graphs) == [served.precision]
    torch.testing.assert_close(served.score(several), model.score(several), rtol=1e-3, atol=4e-3)
