"""The candidate-specific behaviour sequence B_c: the K behaviours of a user's history that are closest to a candidate.

Search as in EST 4 and 6.1.1 (the GSU): same category first, then content similarity, and the newest among equals. It
has no parameters and never copies a history; what follows it pools behaviours by a mask or gathers K places.

Shapes: R requests, N candidates, C and L the longest candidate list and history, K behaviours kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batches import Batch
from models.inputs import Blocks
from uniscale.samples import SampleSpec

COSINE_STEPS = 4096  # cosines are compared in steps, so that rounding never decides between equal items


class CandidateHistory:
    """K behaviours a candidate.

    Args:
        spec: tells which id columns are categories, and whether items have content or text vectors.
        length: K.
    """

    def __init__(self, spec: SampleSpec, length: int):
        self.length = length
        self.content = spec.content_dim > 0
        candidate, behaviour = spec.select("candidate", ("id",)), spec.select("behaviour", ("id",))
        self.categories = [
            (i, j)
            for i, own in enumerate(candidate)
            for j, seen in enumerate(behaviour)
            if own.table == seen.table and own.table.startswith("category")
        ]

    def ranks(self, batch: Batch) -> Tensor:
        """Whole numbers (R, C, L), higher for closer behaviours, no two alike in a row; -1 where there is none."""
        own = batch.candidate_content if self.content else batch.candidate_text
        seen = batch.behaviour_content if self.content else batch.behaviour_text
        cosine = batch.grid(F.normalize(own, dim=-1)) @ F.normalize(seen, dim=-1).transpose(1, 2)  # (R, C, L)
        rank = ((cosine.float() + 1.0) * COSINE_STEPS).round().to(torch.int64)
        for of_candidate, of_behaviour in self.categories:
            wanted = batch.grid(batch.candidate_ids[:, of_candidate : of_candidate + 1])  # (R, C, 1)
            same = (wanted == batch.behaviour_ids[:, :, of_behaviour].unsqueeze(1)) & (wanted != 0)
            rank = rank + same * (4 * COSINE_STEPS)
        length = rank.shape[-1]
        rank = rank * length + torch.arange(length, device=rank.device)
        return torch.where(batch.behaviour_mask.unsqueeze(1), rank, -1)

    def mask(self, batch: Batch) -> Tensor:
        """Which behaviours are a candidate's K closest, (R, C, L)."""
        ranks = self.ranks(batch)
        last = F.pad(ranks, (0, self.length), value=-1).topk(self.length).values[..., -1:]
        return (ranks >= last) & (ranks >= 0)

    def mean(self, blocks: Blocks) -> Tensor:
        """Mean of a candidate's K closest behaviours, (N, w); zero where there is none."""
        among = self.mask(blocks.batch)
        weights = among / among.sum(-1, keepdim=True).clamp(min=1)
        return blocks.batch.ungrid(weights.to(blocks.behaviours.dtype) @ blocks.behaviours)

    def places(self, batch: Batch) -> Tensor:
        """Places of the K closest in the history, oldest first, (N, K); L and above where there are fewer."""
        ranks = F.pad(batch.ungrid(self.ranks(batch)), (0, self.length), value=-1)
        ranks, places = ranks.topk(self.length)
        return torch.where(ranks >= 0, places, batch.behaviour_mask.shape[1]).sort().values
