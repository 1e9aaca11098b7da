"""Training in several processes started by `torchrun`: one share of each batch a process, one set of weights.

The dense part is `DistributedDataParallel`'s. The tables are the same on all ranks (unless `models.sharded_tables`
deals them out): every rank gathers the rows that any rank has touched with their gradients, and updates them alike. A
global batch is the batch of one process, dealt out request by request, and its loss is averaged over all its labels, so
that the number of processes changes nothing but the order of summation. Moments of a batch (STAR's norm, in training)
are of a rank's own share.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.batches import Batch


@dataclass(frozen=True)
class World:
    """The processes of a training; the default is one alone."""

    rank: int = 0
    size: int = 1

    def share(self, requests: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's requests of a batch; one without a share takes the first, which `idle` then leaves out."""
        return requests[self.rank :: self.size] if len(requests) > self.rank else requests[:1]

    def idle(self, batch: Batch, requests: int) -> Batch:
        """The share of a global batch of so many requests, its labels without weight where it is no share."""
        return batch if requests > self.rank else replace(batch, weights=torch.zeros_like(batch.weights))

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all ranks of a tensor without gradient."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def gather(self, value: Tensor) -> list[Tensor]:
        """A tensor (n, …) of each rank, n of its own, in the order of the ranks."""
        if self.size == 1:
            return [value]
        length = torch.tensor([len(value)], device=value.device)
        lengths = [torch.empty_like(length) for _ in range(self.size)]
        dist.all_gather(lengths, length)
        longest = int(max(lengths))
        padded = value.new_zeros(longest, *value.shape[1:])
        padded[: len(value)] = value
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [one[: int(n)] for one, n in zip(found, lengths, strict=True)]

    def gather_rows(self, gradient: Tensor) -> Tensor:
        """Sum over all ranks of a sparse gradient (rows, d), not coalesced."""
        if self.size == 1:
            return gradient
        own = gradient.coalesce()
        rows, values = self.gather(own.indices()[0]), self.gather(own.values())
        # several entries of a row are summed by the optimiser; the check would read them all
        return torch.sparse_coo_tensor(
            torch.cat(rows).unsqueeze(0), torch.cat(values), own.shape, check_invariants=False
        )

    def wrap(self, model: nn.Module, table: str) -> nn.Module:
        """The model whose backward pass averages the dense gradients over the ranks; the named table is left alone."""
        if self.size == 1:
            return model
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, [table])
        # a batch without rows of a domain leaves that domain's own parts without a gradient
        return DistributedDataParallel(model, find_unused_parameters=True)

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def world_of(device: torch.device) -> Iterator[World]:
    """The processes that `torchrun` has started, found by its environment; one alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
