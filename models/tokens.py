"""Tokenizers: the blocks of a batch to tokens of one width, request-level ones once a request.

A token is a block (`Tokenizer`, UniScale 3.4.1), a feature (`FeatureTokenizer`, the fields of AutoInt, HiFormer and
Wukong) or an even share of all embeddings (`SplitTokenizer`, RankMixer).

Shapes: R requests, N candidates, n tokens of which n_r of the request and n_c of the candidate, d width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.inputs import Blocks, Widths
from models.layers import TokenLinear, mlp


class Tokenizer(nn.Module):
    """Each block's embeddings, concatenated, through its own MLP to d; request-level blocks once a request."""

    def __init__(self, widths: Widths, width: int, dropout: float):
        super().__init__()
        sizes = widths.request | widths.candidate
        self.request, self.candidate = tuple(widths.request), tuple(widths.candidate)
        self.maps = nn.ModuleDict(
            {
                block: nn.Sequential(mlp(size, [width], dropout), nn.Linear(width, width))
                for block, size in sizes.items()
            }
        )

    @property
    def tokens(self) -> int:
        """n."""
        return len(self.request) + len(self.candidate)

    def forward(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Tokens of the request-level blocks (R, n_r, d) and of the candidate-level ones (N, n_c, d)."""
        return (
            torch.stack([self.maps[block](blocks.request[block]) for block in self.request], dim=1),
            torch.stack([self.maps[block](blocks.candidate[block]) for block in self.candidate], dim=1),
        )


class FeatureTokenizer(nn.Module):
    """Each feature through a linear map of its own to d: ids and frozen vectors apart, a block's numbers together.

    AutoInt and HiFormer give a token to every field; one for a group of numbers is how Wukong embeds dense features.
    """

    def __init__(self, widths: Widths, width: int):
        super().__init__()
        self.width = width
        self.features = {block: widths.features_of(block) for block in (*widths.request, *widths.candidate)}
        self.request, self.candidate = tuple(widths.request), tuple(widths.candidate)
        self.counts = tuple(
            sum(len(self.features[block]) for block in level) for level in (self.request, self.candidate)
        )
        self.maps = nn.ModuleDict(
            {
                block: nn.ModuleList(nn.Linear(size, width) for size in features)
                for block, features in self.features.items()
            }
        )

    def forward(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Tokens of the request's features (R, n_r, d) and of the candidate's (N, n_c, d); n_r may be 0."""
        of_request = self._tokens(blocks.request, self.request)
        empty = blocks.behaviours.new_zeros(blocks.batch.requests, 0, self.width)
        return (
            torch.stack(of_request, dim=1) if of_request else empty,
            torch.stack(self._tokens(blocks.candidate, self.candidate), dim=1),
        )

    def _tokens(self, values: dict[str, Tensor], names: tuple[str, ...]) -> list[Tensor]:
        found: list[Tensor] = []
        for block in names:
            parts, maps = values[block].split(self.features[block], dim=-1), self.maps[block]
            assert isinstance(maps, nn.ModuleList)
            found.extend(linear(part) for linear, part in zip(maps, parts, strict=True))
        return found


class SplitTokenizer(nn.Module):
    """All embeddings, in the order of their semantic groups, cut into equal shares, each mapped to d (RankMixer).

    The request's and the candidate's embeddings are cut apart, so that the request's tokens exist once a request;
    their numbers of tokens are in proportion to the widths, at least one each.
    """

    def __init__(self, widths: Widths, tokens: int, width: int):
        super().__init__()
        sizes = widths.flat()
        of_request = min(max(round(tokens * sizes[0] / sum(sizes)), 1), tokens - 1) if sizes[0] else 0
        self.counts = (of_request, tokens - of_request)
        self.shares = tuple(-(-size // max(count, 1)) for size, count in zip(sizes, self.counts, strict=True))
        self.maps = nn.ModuleList(
            TokenLinear(count, share, width) if count else nn.Identity()
            for count, share in zip(self.counts, self.shares, strict=True)
        )
        self.width = width

    def forward(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Tokens of the request (R, n_r, d) and of the candidate (N, n_c, d); n_r may be 0."""
        found: list[Tensor] = []
        for x, count, share, linear in zip(blocks.flat(), self.counts, self.shares, self.maps, strict=True):
            cut = F.pad(x, (0, count * share - x.shape[-1])).unflatten(-1, (count, share)) if count else None
            found.append(x.new_zeros(x.shape[0], 0, self.width) if cut is None else linear(cut))
        return found[0], found[1]
