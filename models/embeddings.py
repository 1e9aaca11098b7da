"""All id tables as one weight, and the row-wise Adagrad that updates only the rows a batch used.

Row-wise Adagrad keeps one accumulator a row instead of one an element: s_r ← s_r + mean_j g_rj², then
w_r ← w_r − lr · g_r / (√s_r + ε) (Duchi et al. 2011, grouped by row as embedding libraries for ranking do).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniscale.errors import ModelError
from uniscale.hashing import hash64

INITIAL_SCALE = 0.01


class EmbeddingTables(nn.Module):
    """Every table as a range of rows of one weight (rows, d); row 0 of the whole is the padding row, always zero.

    Args:
        tables: rows of each table.
        dim: d.
        seed: each table's initial rows depend on the seed, its name and its size alone, not on the other tables.
    """

    replicated = True  # every process of a training holds all rows; `models.sharded_tables` deals them out

    def __init__(self, tables: Mapping[str, int], dim: int, seed: int):
        super().__init__()
        self.offsets: dict[str, int] = {}
        total = 1
        for name, rows in tables.items():
            self.offsets[name] = total
            total += rows
        self.sizes = dict(tables)
        weight = torch.empty(total, dim)
        weight[0] = 0.0
        for name, rows in tables.items():
            generator = torch.Generator().manual_seed(hash64(f"{seed}:{name}"))
            start = self.offsets[name]
            weight[start : start + rows].normal_(0.0, INITIAL_SCALE, generator=generator)
        self.weight = nn.Parameter(weight)

    @property
    def dim(self) -> int:
        """d."""
        return self.weight.shape[1]

    @property
    def rows(self) -> int:
        """Of all tables, with the padding row."""
        return len(self.weight)

    def own(self, whole: Tensor) -> Tensor:
        """This process's part of something with a row for each of the weight's, (rows, …): all of it."""
        return whole

    def gather(self, own: Tensor) -> Tensor:
        """Inverse of `own`."""
        return own

    def columns(self, tables: Iterable[str]) -> tuple[Tensor, Tensor]:
        """First row and size of the table of each id column, (F,) each, for `rows_of`."""
        names = list(tables)
        offsets = torch.tensor([self.offsets[name] for name in names], dtype=torch.int64)
        return offsets, torch.tensor([self.sizes[name] for name in names], dtype=torch.int64)

    @torch.no_grad()
    def start_from(self, other: "EmbeddingTables") -> None:
        """Take over the rows of tables that another model has too; the others keep theirs.

        Raises:
            ModelError: a table of the same name has another size or width.
        """
        for name in self.sizes.keys() & other.sizes.keys():
            mine, theirs = (self.sizes[name], self.dim), (other.sizes[name], other.dim)
            if mine != theirs:
                raise ModelError(
                    f"table {name} is {mine[0]} rows of {mine[1]} here and {theirs[0]} of {theirs[1]} in the model to "
                    "start from: set model.table_rows and model.embedding_dim to that model's"
                )
            here, there = self.offsets[name], other.offsets[name]
            self.weight[here : here + mine[0]] = other.weight[there : there + mine[0]]

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of the weight: (…) int64 to (…, d). The gradient is sparse: one entry a look-up."""
        return F.embedding(rows, self.weight, sparse=True)


def rows_of(ids: Tensor, offsets: Tensor, sizes: Tensor) -> Tensor:
    """Hashed ids (…, F) to rows of the fused weight: modulo the table's size, 0 (missing) to the padding row."""
    return (torch.remainder(ids, sizes) + offsets) * (ids != 0)


class RowwiseAdagrad(torch.optim.Optimizer):
    """Row-wise Adagrad over sparse gradients; a step costs as much as the batch's distinct rows, not the table.

    Row 0 (padding) never moves.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8):
        super().__init__(parameters, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["sum"] = torch.zeros(parameter.shape[0], device=parameter.device)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows with a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                # unique and index_add take half the time of coalesce() on CPU
                rows, place = torch.unique(parameter.grad._indices()[0], return_inverse=True)
                gradient = parameter.new_zeros(len(rows), parameter.shape[1])
                gradient.index_add_(0, place, parameter.grad._values())
                gradient *= (rows != 0).unsqueeze(1)
                accumulator = self.state[parameter]["sum"]
                total = accumulator.index_select(0, rows) + gradient.square().mean(dim=1)
                accumulator.index_copy_(0, rows, total)
                change = gradient * (group["lr"] / (total.sqrt() + group["eps"])).unsqueeze(1)
                parameter.index_copy_(0, rows, parameter.index_select(0, rows) - change)
