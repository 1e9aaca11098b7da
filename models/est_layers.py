"""The layers of EST (est.txt 5.1, 5.3): lightweight cross-attention, and the full attention it is compared with.

A softmax over B = [B_u, B_c] is computed in two parts, one for the keys of the request and one for the candidate's,
and joined by the logs of their sums. So B_u meets all candidates of its request in one product, and nothing of it is
copied.

Shapes: R requests, N candidates, n tokens of N (n_r of the request), L_u and k behaviours of B_u and B_c, d width,
H heads.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import LOWEST, attend_part
from models.batches import Batch
from models.candidate_history import pick
from models.frozen_content import Neighbours
from models.layers import TokenFFN, TokenLinear
from uniscale.model_sections import ESTConfig


def partial_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Attention of q (B, n, d) over a part of its keys (B, l, d), mask (B, n or 1, l): (B, n, d), (B, n, heads).

    The second is the log of the sum of exponentials, by which `merge` weighs the parts of one softmax.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, n, d_head)
    attended, total = attend_part(q, k, v, mask.unsqueeze(1))
    return attended.transpose(1, 2).flatten(-2), total.squeeze(-1).transpose(1, 2)


def merge(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """One softmax over the keys of all parts, (B, n, d); zero for a query that none of them has a key for."""
    totals = torch.stack([total for _, total in parts])  # (P, B, n, H)
    weights = (torch.softmax(totals, dim=0) * (totals > LOWEST / 2)).unsqueeze(-1)
    heads = [attended.unflatten(-1, (totals.shape[-1], -1)) for attended, _ in parts]
    joined = heads[0] * weights[0]
    for part, weight in zip(heads[1:], weights[1:], strict=True):
        joined = torch.addcmul(joined, part, weight)
    return joined.flatten(-2).to(parts[0][0].dtype)


@dataclass(frozen=True)
class State:
    """Tokens between two layers."""

    request: Tensor  # (R, n_r, d) tokens of N that no candidate has touched yet; n_r is 0 after the first layer
    candidate: Tensor  # (N, n - n_r, d) the others
    user: Tensor  # (R, L_u, d) B_u; (N, L_u, d) under full attention
    searched: Tensor  # (N, k, d) B_c


@dataclass(frozen=True)
class Behaviours:
    """What the layers share: masks, CSA's neighbours, and where B_c lies in the history."""

    batch: Batch
    user_mask: Tensor  # as State.user without d
    place: Tensor  # (N, k)
    searched_mask: Tensor  # (N, k)
    of_user: Neighbours | None
    of_searched: Neighbours | None


class LCA(nn.Module):
    """Lightweight cross-attention (5.3): W_Q and W_O a token of N, W_K and W_V shared by all behaviours."""

    def __init__(self, tokens: int, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = TokenLinear(tokens, width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = TokenLinear(tokens, width, width, bias=False)

    def forward(self, request: Tensor, candidate: Tensor, user: Tensor, searched: Tensor, b: Behaviours) -> Tensor:
        """N as in `State` and [K, V] of B_u (R, L_u, 2d) and of B_c (N, k, 2d) to (N, n, d)."""
        batch, shared = b.batch, request.shape[1]
        user_mask, (k, v) = b.user_mask.unsqueeze(1), user.chunk(2, dim=-1)
        q = self.query(candidate, start=shared)
        # All candidates of a request are queries of one product with its B_u: (R, C · n, d) against (R, L_u, d).
        on_grid = batch.grid(q.flatten(1)).unflatten(-1, q.shape[1:]).flatten(1, 2)
        sides = partial_attention(on_grid, k, v, user_mask, self.heads)
        of_user = [
            batch.ungrid(x.unflatten(1, (-1, q.shape[1])).flatten(2)).unflatten(-1, (q.shape[1], -1)) for x in sides
        ]
        if shared:
            of_request = self.query(request)
            sides = partial_attention(of_request, k, v, user_mask, self.heads)
            of_user = [torch.cat([batch.expand(x), y], dim=1) for x, y in zip(sides, of_user, strict=True)]
            q = torch.cat([batch.expand(of_request), q], dim=1)
        k, v = searched.chunk(2, dim=-1)
        of_searched = partial_attention(q, k, v, b.searched_mask.unsqueeze(1), self.heads)
        joined: Tensor = self.out(merge([(of_user[0], of_user[1]), of_searched]))
        return joined


class FullAttention(nn.Module):
    """Self-attention over X = [B, N] with shared projections (4.1), without the `masked` blocks <query, key>."""

    kept: Tensor

    def __init__(self, width: int, heads: int, masked: Collection[str]):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        kept = [[q + k not in masked for k in "BN"] for q in "BN"]
        self.register_buffer("kept", torch.tensor(kept), persistent=False)

    def forward(self, x: Tensor, behaviours: Tensor) -> Tensor:
        """(N, l + n, d) and the mask of its first l, the behaviours, (N, l) to (N, l + n, d)."""
        n = x.shape[1] - behaviours.shape[1]
        side = torch.arange(x.shape[1], device=x.device).ge(behaviours.shape[1]).long()  # 0 for B, 1 for N
        mask = self.kept[side][:, side] & F.pad(behaviours, (0, n), value=True).unsqueeze(1)
        k, v = self.key_value(x).chunk(2, dim=-1)
        attended: Tensor = self.out(merge([partial_attention(self.query(x), k, v, mask, self.heads)]))
        return attended


class ESTLayer(nn.Module):
    """One block of EST (5.1), or of its full-attention ablation."""

    def __init__(self, tokens: int, config: ESTConfig, dropout: float):
        super().__init__()
        d, hidden = config.dim, config.ffn_multiple * config.dim
        self.full = FullAttention(d, config.heads, config.masked_blocks) if config.attention == "full" else None
        self.lca = LCA(tokens, d, config.heads) if config.attention == "lca" else None
        self.norms = nn.ModuleDict({f"{side}_{part}": nn.LayerNorm(d) for side in "nb" for part in ("mix", "ffn")})
        self.of_features = TokenFFN(tokens, d, hidden, dropout=dropout, gated=True)
        self.of_behaviours = TokenFFN(1, d, hidden, specific=False, dropout=dropout, gated=True)

    def forward(self, state: State, b: Behaviours, history: Tensor | None = None) -> State:
        """The next state; `history` (R, L, d), of which B_c still are rows, saves projecting them a candidate."""
        mixed = self.mix_all(state, b) if self.full is not None else self.mix(state, b, history)
        n, user, searched = mixed.candidate, mixed.user, mixed.searched
        return State(
            mixed.request,
            n + self.of_features(self.norms["n_ffn"](n)),
            user + self.of_behaviours(self.norms["b_ffn"](user)),
            searched + self.of_behaviours(self.norms["b_ffn"](searched)),
        )

    def mix(self, state: State, b: Behaviours, history: Tensor | None) -> State:
        """LCA and CSA side by side."""
        assert self.lca is not None
        of_n, of_b = self.norms["n_mix"], self.norms["b_mix"]
        user, searched = of_b(state.user), of_b(state.searched)
        project = self.lca.key_value
        of_searched = project(searched) if history is None else pick(project(of_b(history)), b.place, b.batch)
        attended = self.lca(of_n(state.request), of_n(state.candidate), project(user), of_searched, b)
        n = torch.cat([b.batch.expand(state.request), state.candidate], dim=1) + attended
        if b.of_user is None or b.of_searched is None:
            return State(state.request[:, :0], n, state.user, state.searched)
        return State(
            state.request[:, :0],
            n,
            state.user + b.of_user.attend(user),
            state.searched + b.of_searched.attend(searched),
        )

    def mix_all(self, state: State, b: Behaviours) -> State:
        """Full attention over [B_u, B_c, N]."""
        assert self.full is not None
        batch = b.batch
        n = torch.cat([batch.expand(state.request), state.candidate], dim=1)
        behaviours = torch.cat([state.user, state.searched], dim=1)
        normed = torch.cat([self.norms["b_mix"](behaviours), self.norms["n_mix"](n)], dim=1)
        x = torch.cat([behaviours, n], dim=1) + self.full(normed, torch.cat([b.user_mask, b.searched_mask], dim=1))
        user, searched, n = x.split([state.user.shape[1], state.searched.shape[1], n.shape[1]], dim=1)
        return State(state.request[:, :0], n, user, searched)
