"""What every sequence encoder is: a user's behaviours to one vector, once a request or for each candidate.

No encoder copies a history for each of its request's candidates: candidates are laid on a grid (R, C, ·) and meet
the history in matrix products. A history's order is in its behaviours' ages, a column of every behaviour.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from models.inputs import Blocks, Widths
from uniscale.model_sections import ModelConfig


class Encoder(nn.Module, ABC):
    """Behaviours to a vector of `width`: (R, width), or (N, width) where `per_candidate`."""

    per_candidate = False
    width: int

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__()

    @abstractmethod
    def forward(self, blocks: Blocks) -> Tensor:
        """Encode the histories of a batch."""
