"""The dense optimisers against their formulas, and what is decayed."""

import pytest
import torch

from models.batches import to_batch
from models.optimisers import Optimisers, task_losses
from tests.models.small import small_config, small_model, some_rows
from uniscale.errors import ConfigError

RMSPROP = ("train.dense_optimiser=rmsprop", "train.rmsprop_alpha=0.9", "train.warmup_steps=0")


@pytest.fixture(scope="module")
def batch(samples):
    return to_batch(*some_rows(samples))


def optimisers_of(model, *overrides):
    return Optimisers(model, small_config(*overrides).train, torch.device("cpu"), half=False)


def test_rmsprop_divides_by_the_root_of_a_running_mean_of_squares(batch):
    model = small_model("dlrm_mlp")
    optimisers = optimisers_of(model, *RMSPROP, "train.gradient_clip=1e9", "train.weight_decay=0.0")
    weight = model.network.backbone.mlp.first.linear.weight
    mean, expected = torch.zeros_like(weight), weight.detach().clone()
    for step in range(3):
        optimisers.backward(task_losses(model(batch), batch).sum())
        gradient = weight.grad.clone()
        mean = 0.9 * mean + 0.1 * gradient**2
        expected -= 0.01 * gradient / (mean.sqrt() + 1e-8)
        optimisers.step(step)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("overrides", [(), RMSPROP], ids=["adamw", "rmsprop"])
def test_biases_and_norms_are_not_decayed_and_tables_belong_to_the_sparse_optimiser(overrides):
    model = small_model("hhsft")
    optimisers = optimisers_of(model, *overrides, "train.weight_decay=0.3")
    decayed, plain = optimisers.dense.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    named = dict(model.named_parameters())
    inside = {id(p) for p in plain["params"]}
    assert all(id(p) in inside for name, p in named.items() if name.endswith("bias") or "norm" in name)
    (table,) = optimisers.sparse.param_groups[0]["params"]
    assert table is model.inputs.tables.weight
    assert len(decayed["params"]) + len(plain["params"]) + 1 == len(named)


@pytest.mark.parametrize("overrides", [(), RMSPROP], ids=["adamw", "rmsprop"])
def test_restored_optimisers_go_on_in_the_same_bits(overrides, batch):
    def steps(model, optimisers, numbers):
        for number in numbers:
            optimisers.backward(task_losses(model(batch), batch).sum())
            optimisers.step(number)
        return model.state_dict()

    whole = small_model("dlrm_mlp")
    expected = steps(whole, optimisers_of(whole, *overrides), range(4))
    first = small_model("dlrm_mlp")
    optimisers = optimisers_of(first, *overrides)
    weights = {name: value.clone() for name, value in steps(first, optimisers, range(2)).items()}
    second = small_model("dlrm_mlp", seed=5)
    second.load_state_dict(weights)
    restored = optimisers_of(second, *overrides)
    restored.restore({name: value.clone() for name, value in optimisers.tensors().items()}, {})
    found = steps(second, restored, range(2, 4))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_unknown_dense_optimiser_is_refused():
    with pytest.raises(ConfigError, match=r"train\.dense_optimiser = 'sgd'"):
        small_config("train.dense_optimiser=sgd")


def test_the_running_average_of_the_dense_weights_is_its_formula_and_is_lent_not_given(batch):
    model = small_model("dlrm_mlp")
    optimisers = optimisers_of(model, "train.ema=0.2")
    weight = model.network.backbone.mlp.first.linear.weight
    expected = weight.detach().clone()
    for step in range(4):
        optimisers.backward(task_losses(model(batch), batch).sum())
        optimisers.step(step)
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    latest = weight.detach().clone()
    with optimisers.averaged():
        torch.testing.assert_close(weight.detach(), expected)
    assert torch.equal(weight.detach(), latest)
    restored = optimisers_of(small_model("dlrm_mlp"), "train.ema=0.2")
    restored.restore(optimisers.tensors(), {})
    assert all(torch.equal(*pair) for pair in zip(restored.average, optimisers.average, strict=True))
