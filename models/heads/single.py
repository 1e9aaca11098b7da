"""The single head: one linear map to the tasks' logits, the same for every domain."""

from torch import Tensor, nn

from models.heads.base import Head, HeadSizes
from models.inputs import Blocks


class SingleHead(Head):
    """One linear map."""

    def __init__(self, sizes: HeadSizes):
        super().__init__(sizes)
        self.linear = nn.Linear(sizes.width, sizes.tasks)

    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """(N, width) to (N, T)."""
        logits: Tensor = self.linear(x)
        return logits
