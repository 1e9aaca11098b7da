"""Routing of candidates to the parts of their own domain: sorted by domain, each domain's rows are one slice.

Shapes: N candidates, D domains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from models.batches import Batch


@dataclass(frozen=True)
class Routing:
    """Rows sorted by domain, so that each domain's rows are one slice and no expert sees another's."""

    order: Tensor | None  # (N,) rows in sorted order; None when one domain has them all
    spans: tuple[slice | None, ...]  # of each domain, in sorted order; None: it has no rows

    @classmethod
    def of(cls, batch: Batch, domains: int) -> "Routing":
        """Routing of a batch's candidates."""
        of_row = batch.expand(batch.domain)
        counts = torch.bincount(of_row, minlength=domains).tolist()
        if max(counts) == batch.candidates:
            return cls.single(counts.index(batch.candidates), domains)
        ends = list(accumulate(counts))
        spans = tuple(slice(end - n, end) if n else None for end, n in zip(ends, counts, strict=True))
        return cls(torch.argsort(of_row, stable=True), spans)

    @classmethod
    def single(cls, domain: int, domains: int) -> "Routing":
        """Every row belongs to one domain."""
        return cls(None, tuple(slice(None) if d == domain else None for d in range(domains)))

    def sort(self, x: Tensor) -> Tensor:
        """(N, …) into sorted order."""
        return x if self.order is None else x.index_select(0, self.order)

    def restore(self, x: Tensor) -> Tensor:
        """(N, …) back into the batch's order."""
        return x if self.order is None else torch.empty_like(x).index_copy(0, self.order, x)

    def each(self, function: Callable[..., Tensor], *x: Tensor) -> Tensor:
        """`function(domain, own rows of every x)` for each domain that has rows, (N, …) in sorted order."""
        parts = [function(str(d), *(one[span] for one in x)) for d, span in enumerate(self.spans) if span is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def apply(self, experts: nn.ModuleDict, *x: Tensor) -> Tensor:
        """Each domain's expert (keyed by the domain's number) on that domain's rows alone, (N, …) in sorted order."""
        return self.each(lambda domain, *own: experts[domain](*own), *x)

    def views(self, towers: nn.ModuleList, *x: Tensor) -> tuple[Tensor, Tensor]:
        """Every domain's tower on every row, (N, D, …) in sorted order, and of these the own domain's, (N, …).

        Gradient flows in a row's own domain alone.
        """
        found, current = [], []
        for tower, span in zip(towers, self.spans, strict=True):
            with torch.no_grad():  # sg(·): nothing flows back from another domain's view
                if span is None:
                    found.append(tower(*x))
                    continue
                others = [] if span == slice(None) else [slice(span.start), slice(span.stop, None)]
                parts = [tower(*(one[rows] for one in x)) for rows in others]
            current.append(tower(*(one[span] for one in x)))
            parts.insert(1, current[-1])  # between the rows before and after; or alone
            found.append(torch.cat(parts) if others else parts[0])
        return torch.stack(found, dim=1), torch.cat(current)
