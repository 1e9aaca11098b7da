"""HHSFT, the Heterogeneous Hierarchical Sample Fusion Transformer (UniScale 3.4, eqs. 1 to 8).

Tokens → HFA (token-specific attention) → GFA (composite tokens) → DREF (domain-routed experts) → DAPGA (attention over
domain towers, gated by user and domain) → one head a domain. What the paper leaves open and how it is filled:

- pre-norm and residuals around attention and FFN (`residual`), the GFA ones where the widths allow it;
- no output projection after attention: eq. 1 names W_Q, W_K, W_V alone, the token's FFN follows at once;
- `dref` off leaves the shared expert alone, `dapga` off feeds e to the heads; both off is HHFI of Table 4;
- `hfa_token_specific` off and no GFA layer is the Transformer of Table 3, no layer at all its MLP.

Shapes: R requests, N candidates, n tokens, m composite tokens, D domains, T tasks.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from models.encoders import add_history, build_encoder, history_widths
from models.inputs import Blocks, Widths
from models.layers import TokenFFN, TokenLinear, attend, mlp
from models.routing import Routing
from models.tokens import Tokenizer
from uniscale.model_sections import HHSFTConfig, ModelConfig
from uniscale.samples import SampleSpec


class HFALayer(nn.Module):
    """Heterogeneous feature attention: token-specific QKV (eq. 1), attention among the n tokens, token-specific FFN."""

    def __init__(self, tokens: int, config: HHSFTConfig, dropout: float):
        super().__init__()
        width, specific = config.hfa_dim, config.hfa_token_specific
        self.heads, self.residual = config.hfa_heads, config.residual
        self.qkv = TokenLinear(tokens, width, 3 * width, specific)
        self.ffn = TokenFFN(tokens, width, config.ffn_multiple * width, specific, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if config.residual else nn.Identity() for _ in range(2))

    def project(self, h: Tensor, start: int = 0) -> Tensor:
        """q, k, v side by side, (B, k, 3 d_H), of tokens number start …: h_i [W_Q,i, W_K,i, W_V,i]."""
        projected: Tensor = self.qkv(self.norms[0](h), start)
        return projected

    def forward(self, h: Tensor, qkv: Tensor) -> Tensor:
        """(N, n, d_H) and its (N, n, 3 d_H) to (N, n, d_H)."""
        q, k, v = qkv.chunk(3, dim=-1)
        a = attend(q, k, v, self.heads)
        if not self.residual:
            return self.ffn(a)
        a = a + h
        return a + self.ffn(self.norms[1](a))


class GFALayer(nn.Module):
    """Global feature attention: m composite q, k, v, each from all tokens together (eq. 2), then one Global FFN."""

    def __init__(self, width: int, config: HHSFTConfig, dropout: float):
        super().__init__()
        self.tokens, self.heads = config.gfa_tokens, config.gfa_heads
        self.width = config.gfa_tokens * config.gfa_dim
        self.residual = config.residual
        self.qkv = nn.Linear(width, 3 * self.width, bias=False)
        self.ffn = nn.Sequential(
            mlp(self.width, [config.ffn_multiple * self.width], dropout),
            nn.Linear(config.ffn_multiple * self.width, self.width),
        )
        norms = (nn.LayerNorm(width), nn.LayerNorm(self.width)) if config.residual else (nn.Identity(), nn.Identity())
        self.norms = nn.ModuleList(norms)

    def forward(self, h: Tensor) -> Tensor:
        """concat(h), (N, n·d_H) or the layer before's (N, m·d_G), to (N, m·d_G)."""
        q, k, v = (x.unflatten(-1, (self.tokens, -1)) for x in self.qkv(self.norms[0](h)).chunk(3, dim=-1))
        a = attend(q, k, v, self.heads).flatten(1)  # (N, m·d_G)
        if not self.residual:
            return self.ffn(a)
        if h.shape == a.shape:
            a = a + h
        return a + self.ffn(self.norms[1](a))


class DREF(nn.Module):
    """Domain-routed expert fusion: e = α_s f_s(z) + α_d f_d(z), [α_s, α_d] = softmax(g_moe(z)) (eqs. 3, 4).

    f_d sees, and is updated by, only the rows of domain d. Rows arrive sorted by domain.
    """

    def __init__(self, width: int, out: int, domains: int, routed: bool, dropout: float):
        super().__init__()
        self.shared = mlp(width, [out, out], dropout)
        self.experts = nn.ModuleDict({str(d): mlp(width, [out, out], dropout) for d in range(domains) if routed})
        self.gate = nn.Linear(width, 2) if routed else None

    def alpha(self, z: Tensor) -> Tensor:
        """[α_s, α_d], (N, 2), rows summing to 1."""
        assert self.gate is not None
        return torch.softmax(self.gate(z), dim=-1)

    def forward(self, z: Tensor, routing: Routing) -> Tensor:
        """(N, d_Z) to (N, out)."""
        shared: Tensor = self.shared(z)
        if self.gate is None:
            return shared
        own = routing.apply(self.experts, z)
        alpha_s, alpha_d = self.alpha(z).split(1, dim=-1)
        return alpha_s * shared + alpha_d * own


class DAPGA(nn.Module):
    """Domain-aware personalised gated attention (eqs. 5 to 8).

    Every domain's tower runs on every row, forward only for the rows of other domains: o_cur carries gradient, each
    other o_k is sg(o_k). o_cur queries all D of them; γ = σ(W [emb_user; emb_domain] + b) scales the result.
    """

    def __init__(self, width: int, user_width: int, domain_dim: int, domains: int, dropout: float):
        super().__init__()
        self.towers = nn.ModuleList(mlp(width, [width], dropout) for _ in range(domains))
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.domain = nn.Embedding(domains, domain_dim)
        self.gate = nn.Linear(user_width + domain_dim, width)

    def gamma(self, user: Tensor | None, domain: Tensor) -> Tensor:
        """γ in (0, 1), once a request: (R, width) from emb_user (R, user_width) and the domain's number (R,)."""
        of_domain = self.domain(domain)
        known = of_domain if user is None else torch.cat([user, of_domain], dim=-1)
        return torch.sigmoid(self.gate(known))  # eq. 7

    def forward(self, e: Tensor, gamma: Tensor, routing: Routing) -> Tensor:
        """(N, width), rows sorted by domain, and γ per row to (N, width)."""
        o, current = routing.views(self.towers, e)  # (N, D, width): o_cur and D - 1 detached ones, eq. 5
        q = self.query(current)  # (N, width), eq. 6
        scores = torch.einsum("nd,nkd->nk", q, self.key(o)) / q.shape[-1] ** 0.5
        fused = torch.einsum("nk,nkd->nd", torch.softmax(scores, dim=-1), self.value(o))
        return gamma * fused  # eq. 8


class HHSFT(nn.Module):
    """The whole network over the blocks of `models.inputs`: logits (N, T) of each row's own domain.

    Only the own domain's head touches a row, which is the paper's loss masking.
    """

    def __init__(self, spec: SampleSpec, widths: Widths, model: ModelConfig):
        super().__init__()
        config, domains = model.hhsft, len(spec.domains)
        self.domains = domains
        self.only: int | None = None  # the one domain kept by `fixed_domain`
        self.encoder = build_encoder(widths, model)
        self.tokenizer = Tokenizer(history_widths(self.encoder, widths), config.hfa_dim, model.dropout)
        tokens = self.tokenizer.tokens
        self.hfa = nn.ModuleList(HFALayer(tokens, config, model.dropout) for _ in range(config.hfa_layers))
        width = tokens * config.hfa_dim
        self.gfa = nn.ModuleList()
        for _ in range(config.gfa_layers):
            layer = GFALayer(width, config, model.dropout)
            self.gfa.append(layer)
            width = layer.width
        self.norm = nn.LayerNorm(width) if config.residual else nn.Identity()
        self.dref = DREF(width, config.expert_dim, domains, config.dref, model.dropout)
        user = widths.request.get("user", 0)
        self.dapga = (
            DAPGA(config.expert_dim, user, model.embedding_dim, domains, model.dropout) if config.dapga else None
        )
        self.heads = nn.ModuleDict({str(d): nn.Linear(config.expert_dim, len(spec.tasks)) for d in range(domains)})

    def forward(self, blocks: Blocks) -> Tensor:
        """Logits (N, T)."""
        batch = blocks.batch
        if self.only is None:
            routing, domain = Routing.of(batch, self.domains), batch.domain
        else:
            routing, domain = Routing.single(self.only, self.domains), torch.full_like(batch.domain, self.only)
        e = self.dref(routing.sort(self.interact(blocks)), routing)
        if self.dapga is not None:
            gamma = self.dapga.gamma(blocks.request.get("user"), domain)  # (R, width)
            e = self.dapga(e, routing.sort(batch.expand(gamma)), routing)
        return routing.restore(routing.apply(self.heads, e))

    def interact(self, blocks: Blocks) -> Tensor:
        """HHFI: blocks to z, (N, d_Z)."""
        batch = blocks.batch
        of_request, of_candidate = self.tokenizer(add_history(self.encoder, blocks))  # (R, n_r, d_H), (N, n_c, d_H)
        h = torch.cat([batch.expand(of_request), of_candidate], dim=1)  # (N, n, d_H)
        for number, layer in enumerate(self.hfa):
            assert isinstance(layer, HFALayer)
            if number == 0:  # tokens have not met yet: the request's are projected once a request
                own = layer.project(of_request), layer.project(of_candidate, start=of_request.shape[1])
                qkv = torch.cat([batch.expand(own[0]), own[1]], dim=1)
            else:
                qkv = layer.project(h)
            h = layer(h, qkv)
        z = h.flatten(1)
        for layer in self.gfa:
            z = layer(z)
        normed: Tensor = self.norm(z)
        return normed

    def fixed_domain(self, domain: int = 0) -> "HHSFT":
        """A copy that serves one domain: other domains' experts and heads are gone, all DAPGA towers stay.

        The towers' outputs are keys and values of eq. 6, so they are needed; scores equal the full model's.
        """
        copy = deepcopy(self)
        copy.only = domain
        for modules in (copy.heads, copy.dref.experts):
            for key in set(modules) - {str(domain)}:
                del modules[key]
        return copy
