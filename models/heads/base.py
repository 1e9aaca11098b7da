"""What every head is: a candidate's representation to one logit a task, by parts that its domain may own.

Heads of the multi-task literature are taken over domains and tasks, as the baselines of MDL are: shared parts for all,
a tower for each task of each domain. A domain's rows meet the shared parts and their own domain's alone.

Shapes: R requests, N candidates, D domains, T tasks.
"""

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from models.batches import Batch
from models.inputs import Blocks, Widths
from models.layers import mlp
from models.routing import Routing
from uniscale.model_sections import HeadsConfig, ModelConfig


@dataclass(frozen=True)
class HeadSizes:
    """What a head is built from: the backbone's width, the blocks' widths, D, T and the configuration."""

    width: int
    blocks: Widths
    domains: int
    tasks: int
    model: ModelConfig

    @property
    def config(self) -> HeadsConfig:
        """The section of the heads."""
        return self.model.heads


class Head(nn.Module, ABC):
    """(N, width) to logits (N, T); whatever serves one domain only is in `own`, by the domain's number."""

    def __init__(self, sizes: HeadSizes):
        super().__init__()
        self.domains = sizes.domains
        self.only: int | None = None  # the one domain kept by `fixed_domain`
        self.own = nn.ModuleDict()

    @classmethod
    def embedded_widths(cls, widths: Widths) -> Widths:
        """Widths of the blocks that `embed` gives to the backbone."""
        return widths

    def embed(self, blocks: Blocks) -> Blocks:
        """What the head does to the embeddings before the backbone; nothing, as a rule."""
        return blocks

    @abstractmethod
    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """Logits (N, T) from the backbone's (N, width), the blocks, and what `embed` made of them."""

    def routing(self, batch: Batch) -> Routing:
        """Rows of each domain."""
        return Routing.of(batch, self.domains) if self.only is None else Routing.single(self.only, self.domains)

    def domain(self, batch: Batch) -> Tensor:
        """Number of each request's domain, (R,)."""
        return batch.domain if self.only is None else torch.full_like(batch.domain, self.only)

    def fixed_domain(self, domain: int = 0) -> Self:
        """A copy that serves one domain, without the other domains' own parts; its scores equal this head's."""
        copy = deepcopy(self)
        copy.only = domain
        for key in set(copy.own) - {str(domain)}:
            del copy.own[key]
        return copy


class Experts(nn.Module):
    """E nets of the configured hidden widths, on the same input."""

    def __init__(self, width: int, sizes: HeadSizes):
        super().__init__()
        hidden, dropout = sizes.config.expert_hidden, sizes.model.dropout
        self.nets = nn.ModuleList(mlp(width, hidden, dropout) for _ in range(sizes.config.experts))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) to (N, E, w)."""
        return torch.stack([net(x) for net in self.nets], dim=1)


def tower(width: int, sizes: HeadSizes) -> nn.Sequential:
    """A task's tower: hidden layers, then its logit, (…, width) to (…, 1)."""
    hidden = sizes.config.tower_hidden
    return nn.Sequential(mlp(width, hidden, sizes.model.dropout), nn.Linear([width, *hidden][-1], 1))
