"""PLE, progressive layered extraction (Tang et al. 2020).

Extraction layer j: task k's gate mixes its own experts and the shared ones, the shared gate mixes all of them,
    g^{k,j} = softmax(W^{k,j} g^{k,j-1}) S^{k,j}, S^{k,j} = [experts of k on g^{k,j-1}; shared experts on g^{s,j-1}],
and the last layer, the CGC of the paper, has no shared gate. Over domains, tasks' experts, gates and towers belong to
one domain each; the shared gate of a row mixes the shared experts and those of its own domain, since those of another
domain would learn from it. Every kind has the same number of experts.

Shapes: N candidates, T tasks, E experts of a kind, w their width.
"""

import torch
from torch import Tensor, nn

from models.heads.base import Experts, Head, HeadSizes, tower
from models.inputs import Blocks


class OwnExtraction(nn.Module):
    """A domain's own part of one layer: experts and a gate for each task."""

    def __init__(self, width: int, sizes: HeadSizes):
        super().__init__()
        self.experts = nn.ModuleList(Experts(width, sizes) for _ in range(sizes.tasks))
        self.gates = nn.ModuleList(nn.Linear(width, 2 * sizes.config.experts, bias=False) for _ in range(sizes.tasks))


class OwnPLE(nn.Module):
    """A domain's own part of every layer, and its towers."""

    def __init__(self, widths: list[int], sizes: HeadSizes):
        super().__init__()
        self.layers = nn.ModuleList(OwnExtraction(width, sizes) for width in widths)
        self.towers = nn.ModuleList(tower(sizes.config.expert_hidden[-1], sizes) for _ in range(sizes.tasks))


class PLE(Head):
    """Extraction layers of shared and own experts, then towers."""

    def __init__(self, sizes: HeadSizes):
        super().__init__(sizes)
        config = sizes.config
        widths = [sizes.width, *[config.expert_hidden[-1]] * (config.ple_layers - 1)]
        self.shared = nn.ModuleList(Experts(width, sizes) for width in widths)
        everyone = config.experts * (sizes.tasks + 1)
        self.gates = nn.ModuleList(nn.Linear(width, everyone, bias=False) for width in widths[:-1])
        self.own = nn.ModuleDict({str(d): OwnPLE(widths, sizes) for d in range(sizes.domains)})

    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """(N, width) to (N, T)."""
        routing = self.routing(blocks.batch)
        return routing.restore(routing.each(self.extract, routing.sort(x)))

    def extract(self, domain: str, x: Tensor) -> Tensor:
        """(rows of a domain, width) to (rows, T)."""
        own = self.own[domain]
        assert isinstance(own, OwnPLE)
        common, of_task = x, [x] * len(own.towers)
        for number, (shared, layer) in enumerate(zip(self.shared, own.layers, strict=True)):
            assert isinstance(layer, OwnExtraction)
            together = shared(common)  # (N, E, w)
            apart = [mine(g) for mine, g in zip(layer.experts, of_task, strict=True)]
            if number < len(self.gates):
                common = mix(self.gates[number], common, [*apart, together])
            of_task = [
                mix(gate, g, [mine, together]) for gate, g, mine in zip(layer.gates, of_task, apart, strict=True)
            ]
        return torch.cat([one(g) for one, g in zip(own.towers, of_task, strict=True)], dim=-1)


def mix(gate: nn.Module, g: Tensor, parts: list[Tensor]) -> Tensor:
    """softmax(W g) S: (N, width) and experts' outputs (N, ·, w) to (N, w)."""
    weights = torch.softmax(gate(g), dim=-1).unsqueeze(1)
    return (weights @ torch.cat(parts, dim=1)).squeeze(1)
