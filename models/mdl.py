"""MDL, the unified Multi-Distribution Learner (mdl.txt 3, eqs. 3 to 16): features, scenarios and tasks as tokens.

A block: feature tokens by token mixing and a per-token FFN (eq. 6); scenario and task tokens query the updated feature
tokens (eqs. 7, 8, 11, 13); task tokens add the mean of their instance's scenario tokens and the global one (eqs. 9,
10, 14); per-token FFNs with residuals (eqs. 12, 15). Logits are of the task tokens alone (eq. 16), so their number
does not depend on that of the scenarios. What the paper leaves open and how it is filled:

- eq. 6 is read as PertokenFFN(LN(TokenMixing(T) + T)); `literal_eq6` is the printed parenthesis;
- feature tokens are the semantic blocks and the encoded history;
- the priors ê_spec of eq. 4 are views of the history, pooled by one learnt query a scenario or task, as samples do not
  say in which scenario a behaviour was;
- the last block has no scenario FFN (eq. 12), whose output nothing would read;
- "w/o … interaction" (Table 2) puts the tokens beside the feature tokens into token mixing, and reads their places; in
  the scenarios' case that lets scenario tokens meet, so the rule below does not hold for it;
- "w/o task token" pools the feature tokens in their place and has task towers; "w/o scenario token" has scenario
  towers, the mean of an instance's own ones.

An instance's loss gives no gradient to the tokens of scenarios it does not belong to; it may belong to several.

Shapes: R requests, N candidates, n feature tokens, S scenarios, T tasks, d width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders import add_history, build_encoder, history_widths
from models.inputs import LEVELS, Blocks, Widths
from models.layers import TokenFFN, TokenLinear, attend, mix_tokens, mlp
from uniscale.config import nearest
from uniscale.errors import ModelError
from uniscale.model_sections import MDLConfig, ModelConfig
from uniscale.samples import SampleSpec


def extra_embeddings(model: ModelConfig) -> dict[str, list[str]]:
    """The important features, embedded once more for scenario and for task tokens (ê_imp of eq. 4)."""
    config = model.mdl
    wanted = {"scenario": config.scenario_token, "task": config.task_token}
    return {name: config.important for name, kept in wanted.items() if kept}


class FeatureTokens(nn.Module):
    """t_j = Proj(e_j), one projection a semantic group (eq. 3); groups of the request once a request."""

    def __init__(self, request: dict[str, int], candidate: dict[str, int], width: int):
        super().__init__()
        self.request, self.candidate = tuple(request), tuple(candidate)
        self.maps = nn.ModuleDict({block: nn.Linear(size, width) for block, size in (request | candidate).items()})

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, n, d)."""
        of_request = torch.stack([self.maps[block](blocks.request[block]) for block in self.request], dim=1)
        of_candidate = torch.stack([self.maps[block](blocks.candidate[block]) for block in self.candidate], dim=1)
        return torch.cat([blocks.batch.expand(of_request), of_candidate], dim=1)


class DomainTokens(nn.Module):
    """t = ReLU(FFN(ê_imp ⊕ ê_spec)), a FFN of its own for each scenario or task (eq. 4).

    The request's share of the first map, and the views of the history, are computed once a request.
    """

    def __init__(self, tokens: int, extra: tuple[int, int], behaviour: int, width: int):
        super().__init__()
        self.tokens = tokens
        self.views = nn.Parameter(torch.randn(tokens, behaviour) / behaviour**0.5) if behaviour else None
        self.of_request = TokenLinear(tokens, extra[0] + behaviour, width)
        self.of_candidate = nn.Linear(extra[1], tokens * width, bias=False)
        self.fall = TokenLinear(tokens, width, width)

    def forward(self, blocks: Blocks, extra: tuple[Tensor, Tensor]) -> Tensor:
        """(N, tokens, d)."""
        batch = blocks.batch
        known = [extra[0].unsqueeze(1).expand(-1, self.tokens, -1)]
        if self.views is not None:
            known.append(self.pool(blocks.behaviours, batch.behaviour_mask))
        of_request = self.of_request(torch.cat(known, dim=-1))  # (R, tokens, d)
        of_candidate = self.of_candidate(extra[1]).unflatten(-1, (self.tokens, -1))
        token: Tensor = F.relu(self.fall(F.silu(batch.expand(of_request) + of_candidate)))
        return token

    def pool(self, behaviours: Tensor, mask: Tensor) -> Tensor:
        """ê_spec: each token's view of (R, L, w), (R, tokens, w); zero without a history."""
        assert self.views is not None
        mask = mask.unsqueeze(1)  # (R, 1, L)
        scores = (self.views @ behaviours.transpose(1, 2)).float().masked_fill(~mask, torch.finfo(torch.float32).min)
        return (torch.softmax(scores, dim=-1) * mask).to(behaviours.dtype) @ behaviours


class SelfInteraction(nn.Module):
    """RankMixer's layer as eq. 6 has it: PertokenFFN(LN(TokenMixing(T) + T))."""

    def __init__(self, tokens: int, config: MDLConfig, dropout: float):
        super().__init__()
        self.norm, self.literal = nn.LayerNorm(config.dim), config.literal_eq6
        self.ffn = TokenFFN(tokens, config.dim, config.ffn_multiple * config.dim, dropout=dropout)

    def forward(self, t: Tensor) -> Tensor:
        """(N, n, d) to (N, n, d)."""
        mixed: Tensor = self.ffn(self.norm(mix_tokens(t + t) if self.literal else mix_tokens(t) + t))
        return mixed


class DomainAwareAttention(nn.Module):
    """softmax(q kᵀ / √d) v of scenario or task tokens over feature tokens, Q, K and V a token (eqs. 7, 8)."""

    def __init__(self, tokens: int, features: int, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = TokenLinear(tokens, width, width)
        self.key_value = TokenLinear(features, width, 2 * width)

    def forward(self, t: Tensor, features: Tensor) -> Tensor:
        """(N, tokens, d) and (N, n, d) to (N, tokens, d); the residual of eqs. 11, 13 is the caller's."""
        k, v = self.key_value(features).chunk(2, dim=-1)
        return attend(self.query(t), k, v, self.heads)


class MixedIn(nn.Module):
    """Table 2's stand-in for domain-aware attention: the tokens' places in token mixing beside the feature tokens.

    Where their number does not divide d, the last d mod tokens columns stay out of the mixing.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, t: Tensor, features: Tensor) -> Tensor:
        """As `DomainAwareAttention`."""
        x = torch.cat([features, t], dim=1)
        rest = x.shape[2] % x.shape[1]
        mixed = mix_tokens(x[..., : x.shape[2] - rest])[:, features.shape[1] :]
        return self.norm(F.pad(mixed, (0, rest)))


class MDLBlock(nn.Module):
    """One block (3.3): feature tokens, then scenario tokens, then task tokens."""

    def __init__(self, features: int, scenarios: int, tasks: int, config: MDLConfig, dropout: float, last: bool):
        super().__init__()
        d, hidden = config.dim, config.ffn_multiple * config.dim

        def interaction(tokens: int, attentive: bool) -> nn.Module | None:
            if not tokens:
                return None
            return DomainAwareAttention(tokens, features, d, config.heads) if attentive else MixedIn(d)

        def ffn(tokens: int) -> nn.Module | None:
            return TokenFFN(tokens, d, hidden, dropout=dropout) if tokens else None

        self.of_features = SelfInteraction(features, config, dropout)
        self.of_scenarios = interaction(scenarios, config.scenario_feature_interaction)
        self.of_tasks = interaction(tasks, config.task_feature_interaction)
        self.scenario_ffn = None if last else ffn(scenarios)
        self.task_ffn = ffn(tasks)

    def forward(
        self, features: Tensor, scenarios: Tensor | None, tasks: Tensor | None, own: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Tokens (N, n, d), (N, S + 1, d), (N, T, d) and each scenario token's weight for the instance (N, S + 1).

        Scenario tokens leave the last block as T̂_s, whose fusion `own` describes.
        """
        features = self.of_features(features)
        if scenarios is not None:
            assert self.of_scenarios is not None
            scenarios = self.of_scenarios(scenarios, features) + scenarios  # eq. 11
        if tasks is not None:
            assert self.of_tasks is not None and self.task_ffn is not None
            tasks = self.of_tasks(tasks, features) + tasks  # eq. 13
            if scenarios is not None:
                tasks = tasks + fused(scenarios, own).unsqueeze(1)  # eqs. 9, 10, 14
            tasks = self.task_ffn(tasks) + tasks  # eq. 15
        if scenarios is not None and self.scenario_ffn is not None:
            scenarios = self.scenario_ffn(scenarios) + scenarios  # eq. 12
        return features, scenarios, tasks


def fused(scenarios: Tensor, own: Tensor) -> Tensor:
    """t_s,avg: mean of the scenario tokens (N, S + 1, d) an instance selects, weights (N, S + 1): (N, d) (eq. 9)."""
    return (own.unsqueeze(1) @ scenarios).squeeze(1)


class ScenarioTowers(nn.Module):
    """Table 2's stand-in for scenario tokens: the mean of the towers of an instance's own scenarios."""

    def __init__(self, scenarios: int, width: int, dropout: float):
        super().__init__()
        self.towers = nn.ModuleList(mlp(width, [width], dropout) for _ in range(scenarios))

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        """(N, tokens, d) and weights (N, S) to (N, tokens, d); zero for an instance of no scenario."""
        views = torch.stack([tower(x) for tower in self.towers], dim=1)  # (N, S, tokens, d)
        return (views * own[..., None, None]).sum(1)


class MDL(nn.Module):
    """The whole network over the blocks of `models.inputs`: logits (N, T).

    Raises:
        ModelError: a width that the number of feature tokens does not divide, nothing that tells scenarios apart, or
            important features of which the spec has none.
    """

    def __init__(self, spec: SampleSpec, widths: Widths, model: ModelConfig):
        super().__init__()
        self.config = config = model.mdl
        d, tasks, scenarios = config.dim, len(spec.tasks), len(spec.scenarios)
        if not scenarios and not (config.scenario_token and config.global_scenario_token):
            raise ModelError(
                "the spec names no scenario, so mdl has the global scenario token alone: "
                "set model.mdl.scenario_token and model.mdl.global_scenario_token to true"
            )
        ids = [feature.name for level in LEVELS[:2] for feature in spec.select(level, ("id",))]
        if config.important and not set(config.important) & set(ids):
            raise ModelError(
                f"model.mdl.important = {config.important} names no id of requests or candidates"
                f"{nearest(config.important[0], ids)}"
            )
        self.encoder = build_encoder(widths, model)
        tokens = history_widths(self.encoder, widths)
        n = len(tokens.request) + len(tokens.candidate)
        if d % n:
            raise ModelError(f"model.mdl.dim = {d} is no multiple of the {n} feature tokens: take {(d // n + 1) * n}")
        self.feature_tokens = FeatureTokens(tokens.request, tokens.candidate, d)
        self.scenario_tokens, self.task_tokens, self.task_towers, self.scenario_towers = None, None, None, None
        of_scenarios, of_tasks = scenarios + config.global_scenario_token, tasks
        if config.scenario_token:
            self.scenario_tokens = DomainTokens(of_scenarios, widths.extra["scenario"], widths.behaviour, d)
        else:
            of_scenarios, self.scenario_towers = 0, ScenarioTowers(scenarios, d, model.dropout)
        if config.task_token:
            self.task_tokens = DomainTokens(of_tasks, widths.extra["task"], widths.behaviour, d)
        else:
            of_tasks, self.task_towers = 0, TokenFFN(tasks, d, config.ffn_multiple * d, dropout=model.dropout)
        self.blocks = nn.ModuleList(
            MDLBlock(n, of_scenarios, of_tasks, config, model.dropout, last=number == config.layers - 1)
            for number in range(config.layers)
        )
        self.logits = TokenLinear(tasks, d, 1)

    def forward(self, blocks: Blocks) -> Tensor:
        """Logits (N, T)."""
        batch = blocks.batch
        features = self.feature_tokens(add_history(self.encoder, blocks))
        scenarios = None if self.scenario_tokens is None else self.scenario_tokens(blocks, blocks.extra["scenario"])
        tasks = None if self.task_tokens is None else self.task_tokens(blocks, blocks.extra["task"])
        own = batch.expand(self.selection(batch.scenarios))
        for block in self.blocks:
            features, scenarios, tasks = block(features, scenarios, tasks, own)
        if tasks is None:  # w/o task token
            pooled = features.mean(1)
            pooled = pooled if scenarios is None else pooled + fused(scenarios, own)
            assert self.task_towers is not None
            tasks = self.task_towers(pooled.unsqueeze(1).expand(-1, self.logits.weight.shape[0], -1))
        if self.scenario_towers is not None:
            tasks = self.scenario_towers(tasks, own)
        return self.logits(tasks).squeeze(-1)  # eq. 16

    def selection(self, scenarios: Tensor) -> Tensor:
        """Weight of each scenario token in eq. 9's mean: multi-hot (R, S) to (R, S + 1), the global token last."""
        selected = scenarios
        if self.config.scenario_token and self.config.global_scenario_token:
            selected = F.pad(scenarios, (0, 1), value=1.0)
        return selected / selected.sum(1, keepdim=True).clamp(min=1.0)
