"""Mean pooling of a history, once a request.

Shapes: R requests, w behaviour width.
"""

from torch import Tensor

from models.encoders.base import Encoder
from models.inputs import Blocks, Widths
from uniscale.model_sections import ModelConfig


class MeanPooling(Encoder):
    """Mean of the behaviours; an empty history is zero."""

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        self.width = widths.behaviour

    def forward(self, blocks: Blocks) -> Tensor:
        """(R, w)."""
        count = blocks.batch.behaviour_mask.sum(1, keepdim=True).clamp(min=1)
        return blocks.behaviours.sum(1) / count  # empty positions are zero
