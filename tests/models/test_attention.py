"""Attention as one node, against torch's own operations and their gradients."""

import pytest
import torch

from models.attention import FEW, LOWEST, NARROW, attend_part, softmax
from models.layers import PReLU


def reference(q, k, v, mask):
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, -1) @ v, scores.logsumexp(-1, keepdim=True)


def check(inputs, mask, used, rtol, atol):
    """Outputs and gradients of `attend_part` are autograd's through `reference`, in float64."""
    rows, heads, queries, width = inputs[0].shape
    of_out, of_total = torch.randn(rows, heads, queries, width), torch.randn(rows, heads, queries, 1)

    def value(out, total):
        lost = (out.double().cpu() * of_out).sum() * (used != "sum")
        return lost + (total.double().cpu() * of_total).sum() * (used != "output")

    exact = [x.detach().cpu().double().requires_grad_() for x in inputs]
    found, expected = attend_part(*inputs, mask), reference(*exact, mask.cpu())
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, check_dtype=False, rtol=rtol, atol=atol)
    for mine, theirs in zip(
        torch.autograd.grad(value(*found), inputs), torch.autograd.grad(value(*expected), exact), strict=True
    ):
        torch.testing.assert_close(mine.cpu(), theirs, check_dtype=False, rtol=rtol, atol=atol)


def some_inputs(queries, keys, width, device="cpu", dtype=torch.float64):
    shapes = (3, 2, queries, width), (3, 2, keys, width), (3, 2, keys, width)
    mask = torch.rand(3, 1, 1, keys) < 0.7
    mask[..., 0] = True
    return [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for shape in shapes], mask.to(device)


@pytest.mark.parametrize("keys", [5, NARROW + 4])
@pytest.mark.parametrize("used", ["both", "output", "sum"])
def test_both_outputs_and_the_gradients_through_them_are_autograds(keys, used):
    check(*some_inputs(7, keys, 4), used, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize(("queries", "keys"), [(7, 5), (1, FEW + 1), (40, 133)])
@pytest.mark.parametrize("used", ["both", "output"])
def test_a_gpu_that_stores_no_scores_finds_the_same(queries, keys, used, dtype, tolerance):
    check(*some_inputs(queries, keys, 16, "cuda", dtype), used, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_part_without_any_key_weighs_nothing_on_a_gpu(dtype):
    inputs, mask = some_inputs(4, FEW + 9, 8, "cuda", dtype)
    mask[1] = False
    out, total = attend_part(*inputs, mask)
    assert out.isfinite().all()
    assert (total[1] < LOWEST / 2).all()
    assert (total[[0, 2]] > LOWEST / 2).all()
    (torch.sigmoid(total) * out).sum().backward()
    assert all(x.grad.isfinite().all() for x in inputs)
    assert not inputs[2].grad[1].any()


@pytest.mark.parametrize("keys", [1, 6, NARROW, NARROW + 1])
def test_a_softmax_over_few_keys_is_a_softmax(keys):
    scores = torch.randn(2, 3, 4, keys)
    torch.testing.assert_close(softmax(scores), torch.softmax(scores, -1))


@pytest.mark.parametrize("slope", [0.25, 1.0, -0.5])
def test_prelu_and_its_gradients_are_torchs(slope):
    mine, theirs = PReLU(init=slope), torch.nn.PReLU(init=slope)
    x = torch.randn(5, 7, requires_grad=True)
    upstream = torch.randn(5, 7)
    torch.testing.assert_close(mine(x), theirs(x))
    found, expected = (torch.autograd.grad(layer(x), (x, layer.weight), upstream) for layer in (mine, theirs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
