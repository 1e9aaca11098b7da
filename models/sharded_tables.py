"""Tables dealt out over the processes of a training, row by row, for tables that outgrow one device.

Process k of P holds the rows 1 + k, 1 + k + P, … of the one weight, and a padding row of its own. A look-up sends each
distinct row to the process that holds it and gets its values back; the backward pass sends the gradients the same way,
so a process updates its own rows alone and row-wise Adagrad stays what it is. A device holds 1 / P of the rows and of
their optimiser's state; the host's memory holds the whole of them while a process starts and while it writes a
checkpoint, which is that of a training without shards: any number of processes goes on from it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.distributed import World
from models.embeddings import EmbeddingTables

GATHERED = 1 << 20  # rows of each process brought together at once


class ShardedTables(EmbeddingTables):
    """This process's share of some tables; all processes look up, gather and load at the same time.

    Args:
        tables: the whole, the same in every process.
        world: at least two processes.
    """

    replicated = False

    def __init__(self, tables: EmbeddingTables, world: World):
        nn.Module.__init__(self)
        self.offsets, self.sizes = tables.offsets, tables.sizes
        self.world, self._rows = world, tables.rows
        self.group = dist.new_group()  # its order does not mix with that of the dense gradients
        self.weight = nn.Parameter(self.own(tables.weight.detach()))

    @property
    def rows(self) -> int:
        """Of all processes, with the padding row."""
        return self._rows

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of the whole weight: (…) int64 to (…, d). The gradient is sparse: one entry a row and asking process."""
        found: Tensor = _LookUp.apply(self.weight, rows.flatten(), self)
        return found.unflatten(0, rows.shape)

    def own(self, whole: Tensor) -> Tensor:
        """This process's part of something that the whole has a row of, (rows, …), after the padding row's."""
        return torch.cat([whole[:1], whole[1 + self.world.rank :: self.world.size]])

    def gather(self, own: Tensor) -> Tensor:
        """Inverse of `own`, on the host."""
        size = self.world.size
        whole = torch.empty(self.rows, *own.shape[1:], dtype=own.dtype)
        whole[:1] = own[:1].cpu()
        for start in range(0, -(-(self.rows - 1) // size), GATHERED):
            for rank, part in enumerate(self.world.gather(own[1 + start : 1 + start + GATHERED])):
                whole[1 + rank + start * size :: size][: len(part)] = part.cpu()
        return whole

    def joined(self) -> EmbeddingTables:
        """The whole tables, on the host."""
        whole = EmbeddingTables({}, self.dim, seed=0)
        whole.offsets, whole.sizes = self.offsets, self.sizes
        whole.weight = nn.Parameter(self.gather(self.weight.detach()))
        return whole

    def exchange(self, x: Tensor, counts: list[int]) -> tuple[Tensor, list[int]]:
        """Send the first counts[0] rows of x to process 0 and so on; what came, and how much from each."""
        sent = torch.tensor(counts, device=x.device)
        came = torch.empty_like(sent)
        dist.all_to_all_single(came, sent, group=self.group)
        of_rank = came.tolist()
        received = x.new_empty(sum(of_rank), *x.shape[1:])
        dist.all_to_all_single(received, x.contiguous(), of_rank, counts, group=self.group)
        return received, of_rank

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        own = {f"{prefix}weight": self.own(state_dict[f"{prefix}weight"])}
        super()._load_from_state_dict({**state_dict, **own}, prefix, *more)


class _LookUp(torch.autograd.Function):
    """Rows (n,) of the whole to (n, d), each distinct row asked for once."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor, tables: ShardedTables) -> Tensor:
        size = tables.world.size
        asked, place = torch.unique(rows, return_inverse=True)
        owner, local = (asked - 1) % size, torch.div(asked - 1, size, rounding_mode="floor") + 1  # padding: local 0
        order = torch.argsort(owner, stable=True)
        counts = torch.bincount(owner, minlength=size).tolist()
        wanted, of_rank = tables.exchange(local[order], counts)
        values, _ = tables.exchange(weight.index_select(0, wanted), of_rank)
        ctx.place = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))[place]
        ctx.tables, ctx.shape, ctx.wanted, ctx.counts = tables, weight.shape, wanted, counts
        return values.index_select(0, ctx.place)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        summed = gradient.new_zeros(sum(ctx.counts), gradient.shape[1]).index_add_(0, ctx.place, gradient)
        values, _ = ctx.tables.exchange(summed, ctx.counts)
        found = torch.sparse_coo_tensor(ctx.wanted.unsqueeze(0), values, ctx.shape, check_invariants=False)
        return found, None, None
