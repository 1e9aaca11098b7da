"""Activation recomputation: the same gradients from fewer kept activations."""

import pytest
import torch

from models.batches import to_batch
from models.optimisers import task_losses
from models.recompute import recompute_layers
from models.zoo import ZOO
from tests.models.small import small_model, some_rows

STACKS = ("hhsft", "onetrans", "onetrans_f", "est", "mdl", "mtgr", "autoint", "hiformer", "rankmixer")


def passed(model, batch):
    """Loss, gradients and bytes that the forward pass kept for the backward one."""
    kept = {}
    torch.manual_seed(0)

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = task_losses(model(batch), batch).sum()
    loss.backward()
    return loss, {name: p.grad.to_dense() for name, p in model.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("name", STACKS)
def test_gradients_are_equal_and_less_is_kept(name, samples):
    assert name in ZOO
    batch = to_batch(*some_rows(samples))
    plain, saving = (small_model(name, "model.dropout=0.1") for _ in range(2))
    recompute_layers(saving.network)
    loss, gradients, kept = passed(plain, batch)
    same_loss, same, fewer = passed(saving, batch)
    assert torch.equal(loss, same_loss)
    for parameter in gradients:
        torch.testing.assert_close(same[parameter], gradients[parameter], rtol=1e-5, atol=1e-7)
    assert fewer < kept
