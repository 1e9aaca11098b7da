"""Laws that every entry of the zoo obeys, with each sequence encoder."""

import numpy as np
import pytest
import torch

from models.batches import Batch, to_batch
from models.checkpoint import load_model, save_model
from models.optimisers import Optimisers, task_losses
from models.zoo import ENCODERS, ZOO, build_model
from tests.models.small import permute_candidates, small_config, small_model, some_rows
from tests.sample_folder import SPEC

EVERY = pytest.mark.parametrize(
    ("name", "encoder"), [(name, encoder) for name in ZOO for encoder in ENCODERS], ids=lambda value: value
)


@pytest.fixture(scope="module")
def data(samples):
    return some_rows(samples)


def built(name, encoder, rows=None, seed=0):
    """A model whose every parameter has left its initial value, so that no zero hides a path."""
    model = small_model(name, f"model.encoder={encoder}", seed=seed)
    if rows is not None:
        model.fit(rows)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.inputs.tables.weight[0] = 0.0  # the padding row
    return model


def fields(batch):
    return [getattr(batch, name) for name in Batch.__dataclass_fields__]


@EVERY
def test_logits_have_a_row_a_candidate_and_a_column_a_task_and_the_loss_is_finite(name, encoder, data):
    rows, vectors = data
    model = built(name, encoder, rows)
    batch = to_batch(rows, vectors)
    logits = model(batch)
    assert logits.shape == (rows.candidates, len(SPEC.tasks))
    assert task_losses(logits, batch).isfinite().all()


@EVERY
def test_the_gradient_reaches_every_parameter(name, encoder, data):
    rows, vectors = data
    model = built(name, encoder, rows)
    batch = to_batch(rows, vectors)
    task_losses(model(batch), batch).sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert float(parameter.grad.to_dense().abs().sum()) > 0, label


@EVERY
def test_longer_padding_changes_nothing(name, encoder, data):
    rows, vectors = data
    model = built(name, encoder, rows).eval()
    short = to_batch(rows, vectors)
    padded = to_batch(rows, vectors, length=short.behaviour_mask.shape[1] + 7)
    torch.testing.assert_close(model(padded), model(short), rtol=1e-5, atol=1e-5)


@EVERY
def test_permuting_candidates_permutes_their_scores(name, encoder, data):
    rows, vectors = data
    model = built(name, encoder, rows).eval()
    permuted, order = permute_candidates(rows)
    assert (order != np.arange(rows.candidates)).any()
    expected = model.score(to_batch(rows, vectors))[order]
    torch.testing.assert_close(model.score(to_batch(permuted, vectors)), expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_a_request_scores_the_same_alone_and_among_others(name, encoder, data):
    rows, vectors = data
    model = built(name, encoder, rows).eval()
    together = model.score(to_batch(rows, vectors))
    for request in (0, 3, rows.requests - 1):
        alone = model.score(to_batch(rows.take(np.array([request])), vectors))
        expected = together[rows.offsets[request] : rows.offsets[request + 1]]
        torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_a_saved_model_loads_to_equal_scores(name, encoder, data, tmp_path):
    rows, vectors = data
    model = built(name, encoder, rows).eval()
    model.calibrate({"click": {"a": 0.7, "b": -0.2}})
    save_model(model, tmp_path / "model", seed=3)
    batch = to_batch(rows, vectors)
    assert torch.equal(load_model(tmp_path / "model").score(batch), model.score(batch))


@EVERY
def test_the_same_seed_gives_the_same_loss_and_another_seed_another(name, encoder, data):
    rows, vectors = data
    batch = to_batch(rows, vectors)

    def losses(seed):
        torch.manual_seed(99 - seed)  # what was drawn before must not matter
        model = small_model(name, f"model.encoder={encoder}", seed=seed)
        return fit(model, batch, steps=3)

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


@EVERY
def test_sixty_four_rows_are_learnt_by_heart(name, encoder, data):
    rows, vectors = data
    few = rows.take(np.arange(int(np.searchsorted(rows.offsets, 64))))
    assert 0 < few.labels.sum() < few.labels.size
    model = small_model(name, f"model.encoder={encoder}")
    model.fit(few)
    losses = fit(model, to_batch(few, vectors), steps=400, learning_rate=0.02, enough=0.05)
    assert losses[-1] < 0.05 < losses[0]


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_weights_rounded_to_half_precision_score_close_to_float32(name, encoder, dtype, tolerance, data):
    rows, vectors = data
    model = built(name, encoder, rows).eval()
    batch = to_batch(rows, vectors)
    exact = model.score(batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype).float())
    rounded = model.score(batch)
    assert not torch.equal(rounded, exact)
    assert float((rounded - exact).abs().max()) < tolerance


@EVERY
def test_autocast_trains_with_a_loss_near_the_full_precision_one(name, encoder, data):
    rows, vectors = data
    model = built(name, encoder, rows)
    batch = to_batch(rows, vectors)
    exact = task_losses(model(batch), batch).sum()
    with torch.autocast("cpu", torch.bfloat16):
        loss = task_losses(model(batch), batch).sum()
    loss.backward()
    assert abs(float(loss.detach() - exact.detach())) < 0.02 * float(exact.detach())
    assert all(parameter.grad.to_dense().isfinite().all() for parameter in model.parameters())


@EVERY
def test_the_search_export_scores_search_rows_as_the_whole_model_does(name, encoder, data):
    rows, vectors = data
    search = rows.take(np.flatnonzero(rows.domain == 0))
    model = built(name, encoder, rows).eval()
    model.calibrate({"conversion": {"a": 1.5, "b": 0.1}})
    batch = to_batch(search, vectors)
    torch.testing.assert_close(model.search_export().score(batch), model.score(batch), rtol=1e-5, atol=1e-6)


class Exportable(torch.nn.Module):
    """The fixed-domain form over plain tensors, which torch.export takes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *tensors):
        return self.model(Batch(*tensors))


@pytest.mark.parametrize("name", ZOO)
def test_the_search_export_passes_torch_export_with_dynamic_candidates_and_history(name, data):
    rows, vectors = data
    search = rows.take(np.flatnonzero(rows.domain == 0))
    model = built(name, "din", rows).search_export()
    dims = {level: torch.export.Dim(level, min=2) for level in ("R", "N", "C", "L")}
    sizes = {
        "offsets": (torch.export.Dim.AUTO,),
        "candidate_mask": (dims["R"], dims["C"]),
        **dict.fromkeys(("request_of", "slot", "candidate_ids", "candidate_numbers"), (dims["N"],)),
        **dict.fromkeys(("candidate_content", "candidate_text", "labels", "weights"), (dims["N"],)),
        **dict.fromkeys(("request_ids", "request_numbers", "query_text", "domain", "scenarios"), (dims["R"],)),
        **dict.fromkeys((f"behaviour_{part}" for part in ("ids", "numbers", "content", "text", "age", "mask")),
                        (dims["R"], dims["L"])),
    }  # fmt: skip
    example = to_batch(search.take(np.arange(3)), vectors, length=5)
    shapes = tuple(dict(enumerate(sizes[field])) for field in Batch.__dataclass_fields__)
    program = torch.export.export(Exportable(model), tuple(fields(example)), dynamic_shapes=(shapes,)).module()
    other = to_batch(search.take(np.arange(3, 12)), vectors, length=8)
    assert other.candidates != example.candidates
    torch.testing.assert_close(program(*fields(other)), model(other), rtol=1e-5, atol=1e-5)


def fit(model, batch, steps, learning_rate=0.01, enough=0.0):
    """Losses of at most so many steps on one batch, until one is small enough."""
    config = small_config(f"train.learning_rate={learning_rate}").train
    optimisers = Optimisers(model, config, torch.device("cpu"), half=False)
    found = []
    for step in range(steps):
        loss = task_losses(model(batch), batch).sum()
        optimisers.backward(loss)
        optimisers.step(step)
        found.append(loss.item())
        if found[-1] < enough:
            break
    return found


def test_building_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_model("hhsft", SPEC, small_config().model, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
