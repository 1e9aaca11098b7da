"""Attention as one node, against torch's own operations and their gradients."""

import pytest
import torch

from models.attention import NARROW, attend_part, softmax
from models.layers import PReLU


def reference(q, k, v, mask):
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, -1) @ v, scores.logsumexp(-1, keepdim=True)


@pytest.mark.parametrize("keys", [5, NARROW + 4])
@pytest.mark.parametrize("used", ["both", "output", "sum"])
def test_both_outputs_and_the_gradients_through_them_are_autograds(keys, used):
    shapes = (3, 2, 7, 4), (3, 2, keys, 4), (3, 2, keys, 4)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.rand(3, 1, 1, keys) < 0.7
    mask[..., 0] = True
    of_out, of_total = torch.randn(3, 2, 7, 4), torch.randn(3, 2, 7, 1)

    def value(out, total):
        return (out * of_out).sum() * (used != "sum") + (total * of_total).sum() * (used != "output")

    found, expected = attend_part(*inputs, mask), reference(*inputs, mask)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, check_dtype=False, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(value(*found), inputs), torch.autograd.grad(value(*expected), inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


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
