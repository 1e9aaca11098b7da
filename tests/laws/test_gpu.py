"""A CUDA device computes what the CPU computes: logits, losses and gradients of every entry, encoder and head."""

import pytest
import torch

from models.batches import to_batch
from models.optimisers import task_losses
from models.recompute import recompute_layers
from tests.laws.test_every_model import EVERY, built
from tests.models.small import some_rows

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def data(samples):
    return some_rows(samples)


def learnt(model, batch, precision=torch.float32):
    """Logits, loss and dense gradients by name of one training step."""
    device = batch.offsets.device.type
    with torch.autocast(device, precision, enabled=precision is not torch.float32):
        logits = model(batch)
    loss = task_losses(logits, batch).sum()
    loss.backward()
    gradients = {label: p.grad.to_dense().cpu() for label, p in model.named_parameters()}
    return logits.detach().float().cpu(), float(loss.detach()), gradients


def pair(name, parts, rows):
    """The same model twice, on the CPU and on the device."""
    return built(name, parts, rows), built(name, parts, rows).to(CUDA)


@EVERY
def test_the_device_learns_as_the_cpu_does(name, parts, data):
    rows, vectors = data
    here, there = pair(name, parts, rows)
    batch = to_batch(rows, vectors)
    logits, loss, gradients = learnt(here, batch)
    found, same_loss, others = learnt(there, batch.to(CUDA))
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    assert same_loss == pytest.approx(loss, rel=1e-4)
    for label, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(others[label], gradient, rtol=1e-3, atol=1e-4 + 1e-3 * scale, msg=label)


@EVERY
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.004)])
def test_autocast_trains_with_a_loss_near_the_full_precision_one(name, parts, precision, tolerance, data):
    rows, vectors = data
    here, there = pair(name, parts, rows)
    batch = to_batch(rows, vectors)
    _, loss, _ = learnt(here, batch)
    _, lower, gradients = learnt(there, batch.to(CUDA), precision)
    assert abs(lower - loss) < tolerance * loss
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@EVERY
def test_scores_are_those_of_the_cpu(name, parts, data):
    rows, vectors = data
    here, there = (model.eval() for model in pair(name, parts, rows))
    batch = to_batch(rows, vectors)
    exact = here.score(batch)
    torch.testing.assert_close(there.score(batch.to(CUDA)).cpu(), exact, rtol=1e-4, atol=1e-5)
    with torch.autocast("cuda", torch.float16):
        half = there.score(batch.to(CUDA)).cpu()
    assert float((half - exact).abs().max()) < 4e-3


@EVERY
def test_recomputation_leaves_the_gradients(name, parts, data):
    rows, vectors = data
    there = built(name, parts, rows).to(CUDA)
    batch = to_batch(rows, vectors).to(CUDA)
    _, _, gradients = learnt(there, batch)
    there.zero_grad(set_to_none=True)
    recompute_layers(there.network)
    _, _, again = learnt(there, batch)
    for label, gradient in gradients.items():
        torch.testing.assert_close(again[label], gradient, rtol=1e-4, atol=1e-5, msg=label)
