"""Activation recomputation: a layer keeps its inputs and computes the rest again in the backward pass (OneTrans 3.5.2).

It trades about a third more forward work for the memory of all layers' activations (Chen et al. 2016).
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

METHODS = ("forward", "keys", "update")  # how networks call a layer; OneTrans' blocks have two entrances


def recompute_layers(network: nn.Module) -> None:
    """Let every layer of the network's stacks recompute its activations, in place."""
    for module in network.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for layer in module:
                for name in METHODS:
                    if name in vars(type(layer)) and list(layer.children()):  # not a lone map or norm
                        setattr(layer, name, partial(checkpoint, getattr(layer, name), use_reentrant=False))
