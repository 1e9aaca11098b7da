"""Heads: a candidate's representation to one logit a task."""

from collections.abc import Callable

from torch import Tensor, nn

from models.batches import Batch


class SingleHead(nn.Module):
    """One linear map to the tasks' logits, the same for every domain."""

    def __init__(self, width: int, tasks: int):
        super().__init__()
        self.linear = nn.Linear(width, tasks)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """(N, width) to (N, T)."""
        logits: Tensor = self.linear(x)
        return logits


HEADS: dict[str, Callable[..., nn.Module]] = {"single": SingleHead}
