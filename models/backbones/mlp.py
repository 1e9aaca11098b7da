"""DLRM-MLP's backbone: an MLP over all embeddings, "the vanilla MLP for feature crossing" (UniScale 4.1.2).

Shapes: R requests, N candidates.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.batches import Batch
from models.inputs import Blocks, Widths
from models.layers import MixedLinear, mlp
from uniscale.model_sections import ModelConfig


class MixedMLP(nn.Module):
    """An MLP over request and candidate features; its first layer does the request's share once a request."""

    def __init__(self, request_width: int, candidate_width: int, hidden: Sequence[int], dropout: float):
        super().__init__()
        self.first = MixedLinear(request_width, candidate_width, hidden[0])
        self.rest = mlp(hidden[0], hidden[1:], dropout)
        self.width = hidden[-1]

    def forward(self, request: Tensor, candidate: Tensor, batch: Batch) -> Tensor:
        """(R, request_width) and (N, candidate_width) to (N, width)."""
        output: Tensor = self.rest(F.silu(self.first(request, candidate, batch)))
        return output


class MLPBackbone(Backbone):
    """An MLP over all blocks."""

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        self.mlp = MixedMLP(*widths.flat(), model.dlrm_mlp.hidden, model.dropout)
        self.width = self.mlp.width

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, width)."""
        output: Tensor = self.mlp(*blocks.flat(), blocks.batch)
        return output
