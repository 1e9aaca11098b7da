"""What EST takes from frozen content (est.txt 4.2, 5.4): similarities, SimTier, semantic ids, CSA.

Content enters as relations between items. Nothing here is learnt but the embeddings of semantic ids, and no gradient
passes through a similarity. Content is the items' content vectors, or their text where a dataset has no content.

Shapes: R requests, N candidates, C and L the longest candidate list and history, m content width, d token width, k
places of a search.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch

GRID = 2**16  # similarities are compared in steps of 1 / GRID, so that equal items tie whatever the order of summation
EMPTY = -(2**62)


@dataclass(frozen=True)
class Content:
    """Unit vectors of a batch's frozen content, and each candidate's cosine to each behaviour of its request."""

    own: Tensor  # (N, m)
    seen: Tensor  # (R, L, m)
    cosines: Tensor  # (R, C, L)

    @classmethod
    def of(cls, batch: Batch) -> "Content":
        """Vectors of a batch, cut off from any gradient; an item without content is zero."""
        use_text = batch.candidate_content.shape[-1] == 0
        own = F.normalize((batch.candidate_text if use_text else batch.candidate_content).detach(), dim=-1)
        seen = F.normalize((batch.behaviour_text if use_text else batch.behaviour_content).detach(), dim=-1)
        return cls(own, seen, exact_product(batch.grid(own), seen))


def exact_product(x: Tensor, y: Tensor) -> Tensor:
    """x yᵀ of unit vectors, (…, a, m) and (…, b, m) to (…, a, b), in float32 under autocast too.

    Half precision would choose other behaviours in training than in serving.
    """
    with torch.autocast(x.device.type, enabled=False):
        return x @ y.transpose(-1, -2)


def strongest(scores: Tensor, valid: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest valid scores of the last dimension: places (…, k), and which of the k exist (…, k).

    Ties go to the later place, the newer behaviour of a history. A place that does not exist is 0.
    """
    length = scores.shape[-1]
    rank = (scores * GRID).round().to(torch.int64) * length + torch.arange(length, device=scores.device)
    # k empty places more, so that k may exceed the length
    rank = F.pad(rank.masked_fill(~valid, EMPTY), (0, k), value=EMPTY)
    best, place = rank.topk(k)
    found = best != EMPTY
    return place * found, found


@dataclass(frozen=True)
class Neighbours:
    """The K most similar behaviours of each behaviour in a sequence: row-wise top K of G = M Mᵀ."""

    similarity: Tensor  # (B, L, L), G at the K largest of each row and 0 elsewhere

    @classmethod
    def of(cls, content: Tensor, mask: Tensor, k: int) -> "Neighbours":
        """Neighbours of sequences with unit content (B, L, m) and mask (B, L)."""
        g = exact_product(content, content)  # (B, L, L)
        place, found = strongest(g, mask.unsqueeze(1), k)
        # a place that does not exist points to 0, which has to keep what another has put there
        return cls(torch.zeros_like(g).scatter_add_(-1, place, g.gather(-1, place) * found))

    def attend(self, x: Tensor) -> Tensor:
        """Content sparse attention (Algorithm 1): Σ_j G_ij x_j over each behaviour's neighbours, (B, L, d)."""
        # G exists anyway, and its product takes a tenth of the time of the gathers of Algorithm 1
        return torch.bmm(self.similarity.to(x.dtype), x)


def simtier(content: Content, batch: Batch, tiers: int) -> Tensor:
    """SimTier (Sheng et al. 2024): behaviours in each of so many equal intervals of the cosine to the candidate.

    Counts pass log1p: (N, tiers). Behaviours without content are not counted, and none is for a candidate without.
    """
    tier = ((content.cosines + 1.0) * (tiers / 2)).to(torch.int64).clamp(0, tiers - 1)  # (R, C, L)
    counted = (batch.behaviour_mask & content.seen.any(-1)).unsqueeze(1).to(content.cosines.dtype)
    empty = counted.new_zeros(*tier.shape[:2], tiers)
    counts = batch.ungrid(empty.scatter_add(-1, tier, counted.expand_as(tier)))
    return torch.log1p(counts) * content.own.any(-1, keepdim=True)


class SemanticIds(nn.Module):
    """Content as discrete ids with learnt embeddings (the semantic id of est.txt 4.2).

    An id is the nearest of `codes` directions, once for each of `levels` sets of them. The paper's are clusters of a
    trained quantiser; ours are drawn at random and stay, as samples bring no quantiser.
    """

    centres: Tensor

    def __init__(self, content_width: int, levels: int, codes: int, width: int):
        super().__init__()
        self.register_buffer("centres", F.normalize(torch.randn(levels * codes, content_width), dim=-1))
        self.codes, self.levels = codes, levels
        self.embedding = nn.Embedding(levels * codes, width)
        self.width = levels * width

    def forward(self, content: Tensor) -> Tensor:
        """Unit vectors (…, m) to (…, levels · width); zero for an item without content."""
        code = exact_product(content, self.centres).unflatten(-1, (self.levels, self.codes)).argmax(-1)  # (…, levels)
        code = code + torch.arange(self.levels, device=code.device) * self.codes
        return self.embedding(code).flatten(-2) * content.any(-1, keepdim=True)
