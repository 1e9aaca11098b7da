"""EST, the Efficiently Scalable Transformer (est.txt 5): every feature and every behaviour a token, none merged.

N ← LCA(Norm(N), Norm(B)) + N and B ← CSA(Norm(B)) + B, then per-token FFNs on N and a shared one on B; the read-out
is an MLP of [N, mean(B)]. B = [B_u, B_c]: the newest behaviours, and those searched for the candidate. What the paper
leaves open and how it is filled:

- several heads and SwiGLU FFNs; the SimTier histogram is one more feature with a tokenizer of its own;
- B_c is searched in the history the samples bring, of which B_u is the newest part; tokens of B hold recency too;
- the query's text is a feature of the request; items' content and text are content, so by default similarities alone;
- `attention: full` is Table 4's Full-Attention, `masked_blocks` its Table 1, `csa: false` Table 4's LCA, `content`
  Table 2.

Once a request: all of B_u in every layer, and in the first layer the request's own tokens with their queries and
their attention to B_u, and keys and values of B_c, which are rows of the history until CSA mixes them. Full attention
lets B see the candidate, so it alone carries B_u a candidate at a time: its cost is what Table 4 measures.

Shapes: R requests, N candidates, n tokens of N (n_r of the request), L_u and k behaviours of B_u and B_c, d width.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch
from models.candidate_history import CandidateHistory, pick
from models.est_layers import Behaviours, ESTLayer, State
from models.frozen_content import Content, Neighbours, SemanticIds, simtier
from models.inputs import Blocks, Widths
from models.layers import TokenLinear, mlp
from uniscale.errors import ModelError
from uniscale.model_sections import ModelConfig
from uniscale.samples import SampleSpec

ITEM_CONTENT = ("item_content", "item_text", "behaviour_content")
SIMILARITIES = ("mean_content_cosine", "highest_content_cosine")


class Columns(nn.Module):
    """Some of the features that lie side by side in a block: (…, w) to (…, the chosen ones' width)."""

    index: Tensor

    def __init__(self, features: dict[str, int], skip: Collection[str]):
        super().__init__()
        starts, start = {}, 0
        for name, width in features.items():
            starts[name], start = start, start + width
        self.chosen = {name: width for name, width in features.items() if name not in skip}
        index = [starts[name] + i for name, width in self.chosen.items() for i in range(width)]
        self.register_buffer("index", torch.tensor(index, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, w) to (…, chosen)."""
        return x.index_select(-1, self.index)


class FeatureTokens(nn.Module):
    """n_i = MLP_i(feature i), one tokenizer a feature (5.2.1): (B, all features side by side) to (B, n, d).

    Features of one width share a batched product, so tokens are ordered by width.
    """

    def __init__(self, features: dict[str, int], dim: int):
        super().__init__()
        self.columns, self.first = nn.ModuleList(), nn.ModuleList()
        for width in sorted(set(features.values())):
            others = [name for name in features if features[name] != width]
            self.columns.append(Columns(features, others))
            self.first.append(TokenLinear(len(features) - len(others), width, dim))
        self.last = TokenLinear(len(features), dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, w) to (B, n, d)."""
        hidden = []
        for columns, first in zip(self.columns, self.first, strict=True):
            assert isinstance(first, TokenLinear)
            hidden.append(first(columns(x).unflatten(-1, (-1, first.weight.shape[1]))))
        return self.last(F.silu(torch.cat(hidden, dim=1)))


class EST(nn.Module):
    """The whole network over the blocks of `models.inputs`: logits (N, T).

    Raises:
        ModelError: a dataset without behaviours.
    """

    def __init__(self, spec: SampleSpec, widths: Widths, model: ModelConfig):
        super().__init__()
        config, d = model.est, model.est.dim
        if not widths.behaviour:
            raise ModelError(
                "est reads behaviours and the dataset has none: it takes features of level behaviour, such as "
                "behaviour_item; or take another model, e.g. hhsft"
            )
        self.config = config
        content_width = spec.content_dim or spec.text_dim
        self.longest = spec.max_behaviours
        self.search = CandidateHistory(spec, config.candidate_behaviours)
        self.semantic_ids = (
            SemanticIds(content_width, config.semantic_levels, config.semantic_codes, model.embedding_dim)
            if "semantic_id" in config.content
            else None
        )
        skip = () if "side_information" in config.content else ITEM_CONTENT
        skip = skip if "simtier" in config.content else (*skip, *SIMILARITIES)
        ids = self.semantic_ids.width if self.semantic_ids is not None else 0
        self.of_request, request = _chosen(widths, widths.request, skip)
        self.of_candidate, candidate = _chosen(widths, widths.candidate, skip)
        candidate |= {"simtier": config.simtier_tiers} if "simtier" in config.content else {}
        candidate |= {"semantic_ids": ids} if ids else {}
        self.request_tokens, self.candidate_tokens = FeatureTokens(request, d), FeatureTokens(candidate, d)
        self.of_behaviour, seen = _chosen(widths, ("behaviour",), skip)
        width = sum(seen.values()) + ids
        self.user_tokens, self.searched_tokens = (
            nn.Sequential(mlp(width, [d], model.dropout), nn.Linear(d, d)) for _ in range(2)
        )
        tokens = len(request) + len(candidate)
        self.layers = nn.ModuleList(ESTLayer(tokens, config, model.dropout) for _ in range(config.layers))
        self.head = nn.Sequential(
            mlp((tokens + 1) * d, config.head_hidden, model.dropout),
            nn.Linear(config.head_hidden[-1], len(spec.tasks)),
        )

    def forward(self, blocks: Blocks) -> Tensor:
        """Logits (N, T)."""
        state, b, history = self.tokenize(blocks)
        for number, layer in enumerate(self.layers):
            state = layer(state, b, history if number == 0 else None)
        user, searched = b.user_mask.unsqueeze(-1), b.searched_mask.unsqueeze(-1)
        total, count = (state.user * user).sum(1), user.sum(1)
        if self.config.attention == "lca":
            total, count = b.batch.expand(total), b.batch.expand(count)
        mean = (total + (state.searched * searched).sum(1)) / (count + searched.sum(1)).clamp(min=1)
        logits: Tensor = self.head(torch.cat([state.candidate.flatten(1), mean], dim=-1))
        return logits

    def tokenize(self, blocks: Blocks) -> tuple[State, Behaviours, Tensor]:
        """The first state, what all layers share, and the history's tokens (R, L, d) of which B_c are rows."""
        batch, config = blocks.batch, self.config
        content = Content.of(batch)
        of_request = self.of_request(torch.cat(list(blocks.request.values()), dim=-1))
        of_candidate = [self.of_candidate(torch.cat(list(blocks.candidate.values()), dim=-1))]
        seen = self.of_behaviour(blocks.behaviours)
        if "simtier" in config.content:
            of_candidate.append(simtier(content, batch, config.simtier_tiers))
        if self.semantic_ids is not None:
            of_candidate.append(self.semantic_ids(content.own))
            seen = torch.cat([seen, self.semantic_ids(content.seen)], dim=-1)

        place, found = self.search.places(batch, content)
        newest, user_mask = self.newest(batch)
        user_content = content.seen if newest is None else _rows(content.seen, newest)
        user = self.user_tokens(seen if newest is None else _rows(seen, newest))
        history = self.searched_tokens(seen)
        if config.attention == "full":
            user, user_mask = batch.expand(user), batch.expand(user_mask)
        neighbours: tuple[Neighbours | None, Neighbours | None] = (None, None)
        if config.csa:  # G once, for all layers
            neighbours = (
                Neighbours.of(user_content, user_mask, config.csa_neighbours),
                Neighbours.of(pick(content.seen, place, batch), found, config.csa_neighbours),
            )
        n = self.request_tokens(of_request), self.candidate_tokens(torch.cat(of_candidate, dim=-1))
        state = State(*n, user, pick(history, place, batch))
        return state, Behaviours(batch, user_mask, place, found, *neighbours), history

    def newest(self, batch: Batch) -> tuple[Tensor | None, Tensor]:
        """Places of B_u in the history, (R, L_u), None where it is the whole history, and the mask of B_u."""
        if self.longest <= self.config.user_behaviours:
            return None, batch.behaviour_mask
        count = batch.behaviour_mask.sum(1, keepdim=True)
        place = count - self.config.user_behaviours + torch.arange(self.config.user_behaviours, device=count.device)
        return place.clamp(min=0), place >= 0


def _chosen(widths: Widths, blocks: Collection[str], skip: Collection[str]) -> tuple[Columns, dict[str, int]]:
    """Columns of the blocks' features, side by side, and the features left."""
    columns = Columns({name: width for block in blocks for name, width in widths.features[block].items()}, skip)
    return columns, dict(columns.chosen)


def _rows(x: Tensor, place: Tensor) -> Tensor:
    """(R, L, w) at (R, l) to (R, l, w)."""
    return x.gather(1, place.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
