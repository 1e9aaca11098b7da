"""Laws that every entry of the zoo obeys, with each sequence encoder and each head in some entry."""

from itertools import chain, cycle, islice
from typing import get_args

import numpy as np
import pytest
import torch

from models.batches import Batch, to_batch
from models.checkpoint import load_model, save_model
from models.inputs import Blocks
from models.optimisers import Optimisers, task_losses
from models.zoo import ENCODE_THEN_INTERACT, ENCODERS, HEADS, ZOO, build_model
from tests.models.small import permute_candidates, small_config, small_model, some_rows
from tests.sample_folder import SPEC
from uniscale.model_sections import EncoderName, HeadName, ModelName


def covering(*registries):
    """As many cases as the longest registry has names, so that every name of each stands in one."""
    longest = max(map(len, registries))
    return list(zip(*(islice(cycle(registry), longest) for registry in registries), strict=True))


CASES = covering(ENCODE_THEN_INTERACT, ENCODERS, HEADS)
CASES += [(name, "din", "single") for name in ZOO if name not in ENCODE_THEN_INTERACT]  # with a head of their own
EVERY = pytest.mark.parametrize(("name", "parts"), [(name, rest) for name, *rest in CASES], ids=str)


@pytest.fixture(scope="module")
def data(samples):
    return some_rows(samples)


def small(name, parts, seed=0):
    encoder, head = parts
    # two layers have a first and a last one; a third would cost a third more
    return small_model(name, f"model.encoder={encoder}", f"model.head={head}", "model.onetrans.layers=2", seed=seed)


def built(name, parts, rows=None, seed=0):
    """A model whose every parameter has left its initial value, so that no zero hides a path."""
    model = small(name, parts, seed)
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
def test_logits_have_a_row_a_candidate_and_a_column_a_task_and_the_loss_is_finite(name, parts, data):
    rows, vectors = data
    model = built(name, parts, rows)
    batch = to_batch(rows, vectors)
    logits = model(batch)
    assert logits.shape == (rows.candidates, len(SPEC.tasks))
    assert task_losses(logits, batch).isfinite().all()


@EVERY
def test_the_gradient_reaches_every_parameter(name, parts, data):
    rows, vectors = data
    model = built(name, parts, rows)
    batch = to_batch(rows, vectors)
    task_losses(model(batch), batch).sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert float(parameter.grad.to_dense().abs().sum()) > 0, label


@EVERY
def test_longer_padding_changes_nothing(name, parts, data):
    rows, vectors = data
    model = built(name, parts, rows).eval()
    short = to_batch(rows, vectors)
    padded = to_batch(rows, vectors, length=short.behaviour_mask.shape[1] + 7)
    torch.testing.assert_close(model(padded), model(short), rtol=1e-5, atol=1e-5)


@EVERY
def test_permuting_candidates_permutes_their_scores(name, parts, data):
    rows, vectors = data
    model = built(name, parts, rows).eval()
    permuted, order = permute_candidates(rows)
    assert (order != np.arange(rows.candidates)).any()
    expected = model.score(to_batch(rows, vectors))[order]
    torch.testing.assert_close(model.score(to_batch(permuted, vectors)), expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_a_request_scores_the_same_alone_and_among_others(name, parts, data):
    rows, vectors = data
    model = built(name, parts, rows).eval()
    together = model.score(to_batch(rows, vectors))
    for request in (0, 3, rows.requests - 1):
        alone = model.score(to_batch(rows.take(np.array([request])), vectors))
        expected = together[rows.offsets[request] : rows.offsets[request + 1]]
        torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_a_saved_model_loads_to_equal_scores(name, parts, data, tmp_path):
    rows, vectors = data
    model = built(name, parts, rows).eval()
    model.calibrate({"click": {"a": 0.7, "b": -0.2}})
    save_model(model, tmp_path / "model", seed=3)
    batch = to_batch(rows, vectors)
    assert torch.equal(load_model(tmp_path / "model").score(batch), model.score(batch))


@EVERY
def test_the_same_seed_gives_the_same_loss_and_another_seed_another(name, parts, data):
    rows, vectors = data
    batch = to_batch(rows, vectors)

    def losses(seed):
        torch.manual_seed(99 - seed)  # what was drawn before must not matter
        model = small(name, parts, seed)
        return fit(model, batch, steps=3)

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


@EVERY
def test_sixty_four_rows_are_learnt_by_heart(name, parts, data):
    rows, vectors = data
    few = rows.take(np.arange(int(np.searchsorted(rows.offsets, 64))))
    assert 0 < few.labels.sum() < few.labels.size
    model = small(name, parts)
    model.fit(few)
    losses = fit(model, to_batch(few, vectors), steps=400, learning_rate=0.005, enough=0.05)
    assert losses[-1] < 0.05 < losses[0]


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_weights_rounded_to_half_precision_score_close_to_float32(name, parts, dtype, tolerance, data):
    rows, vectors = data
    model = built(name, parts, rows).eval()
    batch = to_batch(rows, vectors)
    exact = model.score(batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype).float())
    rounded = model.score(batch)
    assert not torch.equal(rounded, exact)
    assert float((rounded - exact).abs().max()) < tolerance


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
def test_products_in_half_precision_score_close_to_float32(name, parts, dtype, tolerance, data):
    rows, vectors = data
    model = built(name, parts, rows).eval()
    batch = to_batch(rows, vectors)
    exact = model.score(batch)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        half = model.score(batch)
    assert not torch.equal(half, exact)
    assert float((half - exact).abs().max()) < tolerance


@EVERY
def test_autocast_trains_with_a_loss_near_the_full_precision_one(name, parts, data):
    rows, vectors = data
    model = built(name, parts, rows)
    batch = to_batch(rows, vectors)
    exact = task_losses(model(batch), batch).sum()
    with torch.autocast("cpu", torch.bfloat16):
        loss = task_losses(model(batch), batch).sum()
    loss.backward()
    assert abs(float(loss.detach() - exact.detach())) < 0.02 * float(exact.detach())
    assert all(parameter.grad.to_dense().isfinite().all() for parameter in model.parameters())


@EVERY
def test_the_search_export_scores_search_rows_as_the_whole_model_does(name, parts, data):
    rows, vectors = data
    search = rows.take(np.flatnonzero(rows.domain == 0))
    model = built(name, parts, rows).eval()
    model.calibrate({"conversion": {"a": 1.5, "b": 0.1}})
    batch = to_batch(search, vectors)
    torch.testing.assert_close(model.search_export().score(batch), model.score(batch), rtol=1e-5, atol=1e-6)


class OverTensors(torch.nn.Module):
    """A model, or a network with the blocks it reads, over plain tensors, which torch.export takes."""

    def __init__(self, inner, names=None):
        super().__init__()
        self.inner, self.names = inner, names

    def forward(self, *tensors):
        batch = Batch(*tensors[: len(Batch.__dataclass_fields__)])
        if self.names is None:
            return self.inner(batch)
        request, candidate, extra = self.names
        behaviours, *rest = tensors[len(fields(batch)) :]
        parts = iter(rest)
        of_request, of_candidate = ({name: next(parts) for name in level} for level in (request, candidate))
        more = {name: (next(parts), next(parts)) for name in extra}
        return self.inner(Blocks(batch, of_request, of_candidate, behaviours, more))


FIXED = torch.export.Dim.STATIC
R, N, C = (torch.export.Dim(level, min=2) for level in ("R", "N", "C"))
L = torch.export.Dim("L", min=3)  # LONGER's two behaviours in a token would leave one of two: export takes 1 for fixed
SIZES = {
    "offsets": (torch.export.Dim.AUTO,),
    "candidate_mask": (R, C),
    **dict.fromkeys(("request_of", "slot", "candidate_ids", "candidate_numbers"), (N,)),
    **dict.fromkeys(("candidate_content", "candidate_text", "labels", "weights"), (N,)),
    **dict.fromkeys(("request_ids", "request_numbers", "query_text", "domain", "scenarios"), (R,)),
    **dict.fromkeys((f"behaviour_{part}" for part in ("ids", "numbers", "content", "text", "age", "mask")), (R, L)),
}


def exported(module, example, sizes):
    shapes = tuple(dict(enumerate(dims)) for dims in sizes)
    return torch.export.export(module, tuple(example), dynamic_shapes=(shapes,)).module()


def two_batches(data, spans):
    """Search requests alone, in batches that differ in their candidates and their history."""
    rows, vectors = data
    search = rows.take(np.flatnonzero(rows.domain == 0))
    small, large = (search.take(np.arange(*span)) for span in spans)
    assert small.candidates != large.candidates
    return to_batch(small, vectors, length=5), to_batch(large, vectors, length=8)


def test_a_whole_search_export_passes_torch_export_with_dynamic_candidates_and_history(data):
    name, *parts = CASES[0]
    model = built(name, parts, data[0]).search_export()
    example, other = two_batches(data, ((0, 3), (3, 12)))
    program = exported(OverTensors(model), fields(example), (SIZES[name] for name in Batch.__dataclass_fields__))
    torch.testing.assert_close(program(*fields(other)), model(other), rtol=1e-5, atol=1e-5)


@EVERY
def test_the_network_of_a_search_export_passes_torch_export(name, parts, data):
    """The inputs are the same for all and slow to trace, so a network stands behind tensors of its blocks."""
    model = built(name, parts, data[0]).search_export()
    with torch.no_grad():
        example, other = (model.inputs(batch) for batch in two_batches(data, ((0, 3), (5, 8))))
    names = tuple(example.request), tuple(example.candidate), tuple(example.extra)
    sizes = [SIZES[name] for name in Batch.__dataclass_fields__]
    sizes += [(R, L), *[(R,)] * len(names[0]), *[(N,)] * len(names[1]), *[(R,), (N,)] * len(names[2])]
    if "longer" not in parts:  # whose merged tokens need the requests' number free; for the others it only costs time
        sizes = [tuple(FIXED if size is R else size for size in dims) for dims in sizes]

    def tensors(blocks):
        blocks_of = [*blocks.request.values(), *blocks.candidate.values(), *chain(*blocks.extra.values())]
        return [*fields(blocks.batch), blocks.behaviours, *blocks_of]

    program = exported(OverTensors(model.network, names), tensors(example), sizes)
    torch.testing.assert_close(program(*tensors(other)), model.network(other), rtol=1e-5, atol=1e-5)


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


def test_a_configuration_takes_the_names_of_the_zoo_and_no_other():
    for names, registry in ((ModelName, ZOO), (EncoderName, ENCODERS), (HeadName, HEADS)):
        assert get_args(names) == tuple(registry)


def test_building_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_model("hhsft", SPEC, small_config().model, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
