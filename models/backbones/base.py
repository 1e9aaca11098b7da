"""What every backbone of an encode-then-interact model is: block embeddings to one representation a candidate."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from models.inputs import Blocks, Widths
from uniscale.model_sections import ModelConfig


class Backbone(nn.Module, ABC):
    """Blocks to (N, `width`)."""

    width: int

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__()

    @abstractmethod
    def forward(self, blocks: Blocks) -> Tensor:
        """Cross the blocks of a batch."""
