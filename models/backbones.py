"""Backbones for encode-then-interact models: request and candidate features to one representation a candidate."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch
from models.layers import MixedLinear, mlp


class MLPBackbone(nn.Module):
    """An MLP over all features concatenated, the DLRM-MLP of UniScale 4.1.2; its first layer works once a request."""

    def __init__(self, request_width: int, candidate_width: int, hidden: Sequence[int], dropout: float):
        super().__init__()
        self.first = MixedLinear(request_width, candidate_width, hidden[0])
        self.rest = mlp(hidden[0], hidden[1:], dropout)
        self.width = hidden[-1]

    def forward(self, request: Tensor, candidate: Tensor, batch: Batch) -> Tensor:
        """(R, request_width) and (N, candidate_width) to (N, width)."""
        output: Tensor = self.rest(F.silu(self.first(request, candidate, batch)))
        return output


BACKBONES: dict[str, Callable[..., nn.Module]] = {"mlp": MLPBackbone}
