"""MDL against its equations (mdl.txt 3), its gradient rule, and its ablations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.batches import to_batch
from models.layers import mix_tokens
from models.mdl import DomainAwareAttention, DomainTokens, MDLBlock, MixedIn, ScenarioTowers, SelfInteraction, fused
from models.optimisers import task_losses
from models.zoo import build_model
from tests.models.small import small_config, small_model, some_rows
from tests.sample_folder import SPEC
from uniscale.errors import ConfigError, ModelError

CONFIG = small_config().model.mdl
D, HEAD = CONFIG.dim, CONFIG.dim // CONFIG.heads
SCENARIOS, TASKS = len(SPEC.scenarios), len(SPEC.tasks)


@pytest.fixture(scope="module")
def data(samples):
    return some_rows(samples)


def ffn(layer, x):
    """A per-token FFN written out."""
    rows = []
    for i in range(x.shape[1]):
        hidden = F.silu(x[:, i] @ layer.rise.weight[i] + layer.rise.bias[i])
        rows.append(hidden @ layer.fall.weight[i] + layer.fall.bias[i])
    return torch.stack(rows, dim=1)


def attention(layer, t, features):
    """Eq. 7 row by row, token by token, head by head."""
    out = torch.empty_like(t)
    kv = torch.stack(
        [features[:, j] @ layer.key_value.weight[j] + layer.key_value.bias[j] for j in range(features.shape[1])], 1
    )
    for i in range(t.shape[1]):
        q = t[:, i] @ layer.query.weight[i] + layer.query.bias[i]
        for first in range(0, D, HEAD):
            at = slice(first, first + HEAD)
            k, v = kv[..., :D][..., at], kv[..., D:][..., at]
            weights = torch.softmax((k * q[:, None, at]).sum(-1) / HEAD**0.5, dim=-1)
            out[:, i, at] = (weights.unsqueeze(-1) * v).sum(1)
    return out


def test_token_mixing_gives_token_h_the_slice_h_of_every_token():
    x = torch.arange(18.0).view(1, 3, 6)
    assert mix_tokens(x)[0].tolist() == [
        [0, 1, 6, 7, 12, 13],
        [2, 3, 8, 9, 14, 15],
        [4, 5, 10, 11, 16, 17],
    ]
    twice = torch.randn(4, 3, 6)
    assert torch.equal(mix_tokens(mix_tokens(twice)), twice)


@pytest.mark.parametrize("literal", [False, True])
def test_self_interaction_is_equation_6(literal):
    layer = SelfInteraction(3, CONFIG.model_copy(update={"literal_eq6": literal}), dropout=0.0)
    t = torch.randn(5, 3, D)
    mixed = mix_tokens(2 * t) if literal else mix_tokens(t) + t
    torch.testing.assert_close(layer(t), ffn(layer.ffn, F.layer_norm(mixed, (D,))))


def test_domain_tokens_are_equation_4(data):
    batch = to_batch(*data)
    layer, extra = (
        DomainTokens(3, (4, 5), behaviour=6, width=D),
        (torch.randn(batch.requests, 4), torch.randn(batch.candidates, 5)),
    )
    behaviours = torch.randn(*batch.behaviour_mask.shape, 6) * batch.behaviour_mask.unsqueeze(-1)
    blocks = type("Blocks", (), {"batch": batch, "behaviours": behaviours})()
    found = layer(blocks, extra)
    w_candidate = layer.of_candidate.weight.view(3, D, 5)
    for candidate in range(0, batch.candidates, 13):
        request = batch.request_of[candidate]
        own = behaviours[request][batch.behaviour_mask[request]]
        for i in range(3):
            view = torch.softmax(own @ layer.views[i], dim=0) @ own  # zero without a history
            x = torch.cat([extra[0][request], view]) @ layer.of_request.weight[i] + layer.of_request.bias[i, 0]
            x = F.silu(x + w_candidate[i] @ extra[1][candidate])
            expected = F.relu(x @ layer.fall.weight[i] + layer.fall.bias[i, 0])
            torch.testing.assert_close(found[candidate, i], expected, rtol=1e-5, atol=1e-6)


def test_domain_aware_attention_is_equation_7():
    layer, t, features = DomainAwareAttention(2, 3, D, CONFIG.heads), torch.randn(5, 2, D), torch.randn(5, 3, D)
    torch.testing.assert_close(layer(t, features), attention(layer, t, features))


@pytest.mark.parametrize("last", [False, True])
def test_a_block_is_equations_6_and_9_to_15(last):
    block = MDLBlock(3, 3, 2, CONFIG, dropout=0.0, last=last)
    features, scenarios, tasks = torch.randn(4, 3, D), torch.randn(4, 3, D), torch.randn(4, 2, D)
    # two scenarios and the global one: of none, the first, the second, both
    own = torch.tensor([[0, 0, 1], [0.5, 0, 0.5], [0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    found = block(features, scenarios, tasks, own)
    t_f = block.of_features(features)
    t_s = attention(block.of_scenarios, scenarios, t_f) + scenarios  # eq. 11
    t_t = attention(block.of_tasks, tasks, t_f) + tasks  # eq. 13
    chosen = [[2], [0, 2], [1, 2], [0, 1, 2]]
    average = torch.stack([t_s[row, picked].mean(0) for row, picked in enumerate(chosen)])  # eq. 9
    t_t = t_t + average.unsqueeze(1)  # eqs. 10, 14
    torch.testing.assert_close(found[0], t_f)
    torch.testing.assert_close(found[1], t_s if last else t_s + ffn(block.scenario_ffn, t_s))  # eq. 12
    torch.testing.assert_close(found[2], t_t + ffn(block.task_ffn, t_t))  # eq. 15


def test_an_instance_selects_its_own_scenarios_and_the_global_token():
    multi_hot = torch.tensor([[1.0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    selected = small_model("mdl").network.selection(multi_hot)
    torch.testing.assert_close(
        selected, torch.tensor([[1 / 2, 0, 0, 0, 1 / 2], [1 / 3, 0, 1 / 3, 0, 1 / 3], [0, 0, 0, 0, 1]])
    )
    without = small_model("mdl", "model.mdl.global_scenario_token=false").network.selection(multi_hot)
    torch.testing.assert_close(without, torch.tensor([[1, 0, 0, 0], [1 / 2, 0, 1 / 2, 0], [0, 0, 0, 0.0]]))


def scenario_gradients(model, batch, rows):
    """Gradients of the scenario tokens, (N, S + 1, d), of the loss of some rows alone."""
    tokens = []
    hook = model.network.scenario_tokens.register_forward_hook(lambda *_: tokens.append(_[2]))
    logits = model(batch)
    hook.remove()
    (gradient,) = torch.autograd.grad(F.softplus(logits[rows]).sum(), tokens[0])
    return gradient


def test_an_instances_loss_gives_no_gradient_to_scenarios_it_does_not_belong_to(data):
    rows, vectors = data
    several = rows.scenarios.copy()
    several[:5, :2] = 1.0
    model = small_model("mdl", "model.mdl.layers=3")
    batch = to_batch(replace(rows, scenarios=several), vectors)
    gradient = scenario_gradients(model, batch, slice(None)).any(-1)  # (N, S + 1)
    belongs = batch.expand(batch.scenarios) > 0
    assert (belongs.sum(1) > 1).any()
    assert not gradient[:, :-1][~belongs].any()
    dead = (gradient == 0)[:, :-1][belongs].float().mean()  # ReLU may switch a token off
    assert dead < 0.05
    assert gradient[:, -1].float().mean() > 0.95

    # and so to the parameters that make those tokens
    only_first = rows.take(np.flatnonzero(rows.scenarios[:, 0] == 1))
    model.zero_grad()
    batch = to_batch(only_first, vectors)
    task_losses(model(batch), batch).sum().backward()
    weight = model.network.scenario_tokens.of_request.weight.grad
    assert weight[0].any()
    assert weight[-1].any()
    assert not weight[1:-1].any()
    for block in model.network.blocks:
        assert not block.of_scenarios.query.weight.grad[1:-1].any()


def test_one_scenarios_rows_read_only_its_own_and_the_global_token(data):
    rows, vectors = data
    model = small_model("mdl").eval()
    batch = to_batch(rows, vectors)
    before = model(batch)
    with torch.no_grad():
        model.network.scenario_tokens.fall.bias[3] += 5.0
    home_feed = batch.expand(batch.scenarios[:, 3]) > 0
    after = model(batch)
    assert torch.equal(after[~home_feed], before[~home_feed])
    assert not torch.isclose(after[home_feed], before[home_feed]).all(1).any()


def test_scenario_and_task_tokens_have_embeddings_of_their_own(data):
    model, batch = small_model("mdl"), to_batch(*data)
    offsets = model.inputs.tables.offsets
    assert {name for name in offsets if ":" in name} == {
        f"{kind}:{table}" for kind in ("scenario", "task") for table in ("user", "query", "item")
    }
    blocks = model.inputs(batch)
    dim = model.config.embedding_dim
    assert {name: (x.shape, y.shape) for name, (x, y) in blocks.extra.items()} == dict.fromkeys(
        ("scenario", "task"), ((batch.requests, 2 * dim), (batch.candidates, dim))
    )
    item = int(batch.candidate_ids[0, 0]) % 64
    for name, (_, of_candidate) in blocks.extra.items():
        assert torch.equal(of_candidate[0], model.inputs.tables.weight[offsets[f"{name}:item"] + item])


def test_the_number_of_logits_does_not_depend_on_that_of_scenarios(data):
    model = small_model("mdl")
    spec = replace(SPEC, scenarios=SPEC.scenarios[:1])
    fewer = build_model("mdl", spec, small_config().model, seed=0)
    assert model.network.logits.weight.shape == fewer.network.logits.weight.shape == (TASKS, D, 1)


PARTS = ("scenario_tokens", "task_tokens", "scenario_towers", "task_towers")


@pytest.mark.parametrize(
    ("switches", "parts", "interactions"),
    [
        ([], PARTS[:2], (DomainAwareAttention, DomainAwareAttention)),
        (["task_token=false"], ("scenario_tokens", "task_towers"), (DomainAwareAttention, type(None))),
        (["task_feature_interaction=false"], PARTS[:2], (DomainAwareAttention, MixedIn)),
        (["scenario_token=false"], ("task_tokens", "scenario_towers"), (type(None), DomainAwareAttention)),
        (["global_scenario_token=false"], PARTS[:2], (DomainAwareAttention, DomainAwareAttention)),
        (["scenario_feature_interaction=false"], PARTS[:2], (MixedIn, DomainAwareAttention)),
        (["scenario_token=false", "task_token=false"], PARTS[2:], (type(None), type(None))),
        (["literal_eq6=true"], PARTS[:2], (DomainAwareAttention, DomainAwareAttention)),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_every_ablation_of_table_2_changes_the_graph_as_it_says(switches, parts, interactions, data):
    rows, vectors = data
    model = small_model("mdl", *(f"model.mdl.{switch}" for switch in switches))
    network, batch = model.network, to_batch(rows, vectors)
    assert {part for part in PARTS if getattr(network, part) is not None} == set(parts)
    for block in network.blocks:
        assert (type(block.of_scenarios), type(block.of_tasks)) == interactions
    if network.scenario_tokens is not None:
        assert network.scenario_tokens.tokens == SCENARIOS + ("global_scenario_token=false" not in switches)
    extra = {name.split(":")[0] for name in model.inputs.tables.offsets if ":" in name}
    assert extra == {part.split("_")[0] for part in parts if part.endswith("tokens")}
    logits = model(batch)
    assert logits.shape == (rows.candidates, TASKS)
    task_losses(logits, batch).sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.to_dense().any(), label


def test_mixed_in_reads_the_tokens_places_in_joint_token_mixing():
    layer, features, t = MixedIn(D), torch.randn(2, 3, D), torch.randn(2, 1, D)  # 4 tokens divide 12
    x = torch.cat([features, t], dim=1)
    expected = torch.cat([x[:, i, 9:] for i in range(4)], dim=-1)  # the last slice of every token
    torch.testing.assert_close(layer(t, features)[:, 0], F.layer_norm(expected, (D,)))
    two = torch.randn(2, 2, D)  # 5 tokens do not: slices of 2 columns, and 2 columns of zeros
    x = torch.cat([features, two], dim=1)
    expected = F.pad(torch.cat([x[:, i, 6:8] for i in range(5)], dim=-1), (0, 2))
    torch.testing.assert_close(layer(two, features)[:, 0], F.layer_norm(expected, (D,)))


def test_scenario_towers_average_an_instances_own_and_spare_the_others():
    towers, x = ScenarioTowers(3, D, dropout=0.0), torch.randn(2, 2, D)
    own = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]])
    found = towers(x, own)
    views = [tower(x) for tower in towers.towers]
    torch.testing.assert_close(found[0], views[0][0])
    torch.testing.assert_close(found[1], (views[0][1] + views[1][1]) / 2)
    found.sum().backward()
    assert not any(parameter.grad.any() for parameter in towers.towers[2].parameters())


def test_fusion_is_a_weighted_mean():
    own, scenarios = torch.tensor([[0.5, 0.0, 0.5]]), torch.tensor([[[2.0], [7.0], [4.0]]])
    assert fused(scenarios, own).tolist() == [[3.0]]


def test_a_width_that_the_feature_tokens_do_not_divide_is_refused():
    with pytest.raises(ModelError, match=r"model.mdl.dim = 16 is no multiple of the 6 feature tokens: take 18"):
        small_model("mdl", "model.mdl.dim=16")
    with pytest.raises(ConfigError, match="5 heads do not divide a width of 12"):
        small_config("model.mdl.heads=5")
    with pytest.raises(ModelError, match=r"important = \['itm_hash'\] names no id .*did you mean item_hash"):
        small_model("mdl", "model.mdl.important=[itm_hash]")


@pytest.mark.parametrize("switch", ["scenario_token", "global_scenario_token"])
def test_samples_without_scenarios_leave_the_global_token_alone(switch):
    spec = replace(SPEC, scenarios=())
    build_model("mdl", spec, small_config("model.mdl.dim=12").model, 0)
    with pytest.raises(ModelError, match="spec names no scenario"):
        build_model("mdl", spec, small_config("model.mdl.dim=12", f"model.mdl.{switch}=false").model, 0)
