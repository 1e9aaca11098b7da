"""The candidate-specific behaviour sequence B_c: the K behaviours of a user's history that are closest to a candidate.

The general search unit of est.txt 3 and 6.1.1: behaviours of most shared category levels first, then the most similar
by frozen content, and the newest among equals. It has no parameters and never copies a history; what follows it pools
behaviours by a mask or picks K of them.

Shapes: R requests, N candidates, C and L the longest candidate list and history, K behaviours kept.
"""

import torch
from torch import Tensor

from models.batches import Batch
from models.frozen_content import Content, strongest
from models.inputs import Blocks, matched_columns
from uniscale.samples import SampleSpec

LEVEL = 3.0  # a shared category level outweighs any difference of two cosines


class CandidateHistory:
    """K behaviours a candidate.

    Args:
        spec: tells which id columns are categories.
        length: K.
    """

    def __init__(self, spec: SampleSpec, length: int):
        self.length = length
        ids = spec.select("candidate", ("id",))
        self.categories = [(i, j) for i, j in matched_columns(spec) if ids[i].table.startswith("category")]

    def closest(self, batch: Batch, content: Content) -> tuple[Tensor, Tensor]:
        """Places of the K closest in the history, the closest first, and which of them exist, (R, C, K) each."""
        score = content.cosines
        for of_candidate, of_behaviour in self.categories:
            wanted = batch.grid(batch.candidate_ids[:, of_candidate : of_candidate + 1])  # (R, C, 1)
            same = (wanted == batch.behaviour_ids[:, :, of_behaviour].unsqueeze(1)) & (wanted != 0)
            score = score + LEVEL * same
        return strongest(score, batch.behaviour_mask.unsqueeze(1), self.length)

    def mask(self, batch: Batch) -> Tensor:
        """Which behaviours are a candidate's K closest, (R, C, L)."""
        place, found = self.closest(batch, Content.of(batch))
        requests, width = batch.candidate_mask.shape
        none = torch.zeros(requests, width, batch.behaviour_mask.shape[1], dtype=torch.int64, device=place.device)
        return none.scatter_add(-1, place, found.to(torch.int64)) > 0

    def mean(self, blocks: Blocks) -> Tensor:
        """Mean of a candidate's K closest behaviours, (N, w); zero where there is none."""
        among = self.mask(blocks.batch)
        weights = among / among.sum(-1, keepdim=True).clamp(min=1)
        return blocks.batch.ungrid(weights.to(blocks.behaviours.dtype) @ blocks.behaviours)

    def places(self, batch: Batch, content: Content) -> tuple[Tensor, Tensor]:
        """Places of the K closest in the history, oldest first, and which of them exist, (N, K) each.

        A place that does not exist is 0 and comes last.
        """
        place, found = (batch.ungrid(x) for x in self.closest(batch, content))
        absent = batch.behaviour_mask.shape[1]
        place = torch.where(found, place, absent).sort().values
        found = place < absent
        return place * found, found


def pick(history: Tensor, place: Tensor, batch: Batch) -> Tensor:
    """Behaviours of each candidate by their places: (R, L, w) and (N, K) to (N, K, w)."""
    row = batch.request_of.unsqueeze(1) * history.shape[1] + place
    return history.flatten(0, 1).index_select(0, row.flatten()).unflatten(0, (-1, place.shape[1]))
