"""HHSFT against its equations (UniScale 3.4) written out loop by loop, and its gradient rules."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.batches import to_batch
from models.hhsft import DAPGA, DREF, GFALayer, HFALayer
from models.layers import TokenLinear
from models.optimisers import task_losses
from models.routing import Routing
from tests.models.small import small_config, small_model, some_rows

CONFIG = small_config().model.hhsft


@pytest.fixture(scope="module")
def data(samples):
    return some_rows(samples)


def search_only(rows):
    return rows.take(np.flatnonzero(rows.domain == 0))


def routing_of(counts):
    """Routing of rows that are sorted by domain already."""
    edges = np.cumsum([0, *counts])
    spans = tuple(slice(int(a), int(b)) if b > a else None for a, b in itertools.pairwise(edges))
    return Routing(torch.arange(int(edges[-1])), spans)


def gradients_of_other_domains(model):
    """Gradients of every expert, tower and head that does not belong to domain 0."""
    network = model.network
    for part in (network.dref.experts, network.heads):
        for domain in set(part) - {"0"}:
            yield from (parameter.grad for parameter in part[domain].parameters())
    for tower in list(network.dapga.towers)[1:]:
        yield from (parameter.grad for parameter in tower.parameters())


def test_search_rows_alone_leave_every_other_domains_parts_without_gradient(data):
    rows, vectors = data
    model = small_model("hhsft")
    batch = to_batch(search_only(rows), vectors)
    task_losses(model(batch), batch).sum().backward()
    found = list(gradients_of_other_domains(model))
    assert len(found) == 2 * (4 + 2 + 2)  # two domains; weights and biases of expert, tower and head
    assert all(gradient is None or not gradient.any() for gradient in found)
    assert model.network.dapga.towers[0][0].weight.grad.any()
    assert not model.network.dapga.domain.weight.grad[1:].any()


def test_rows_of_all_domains_give_every_domain_gradient(data):
    rows, vectors = data
    model = small_model("hhsft")
    batch = to_batch(rows, vectors)
    task_losses(model(batch), batch).sum().backward()
    assert all(gradient is not None and gradient.any() for gradient in gradients_of_other_domains(model))


def test_permuting_requests_of_several_domains_permutes_the_output(data):
    rows, vectors = data
    model = small_model("hhsft").eval()
    order = np.random.default_rng(1).permutation(rows.requests)
    assert len(set(rows.domain)) == 3
    logits = model(to_batch(rows, vectors))
    parts = [logits[rows.offsets[r] : rows.offsets[r + 1]] for r in order]
    torch.testing.assert_close(model(to_batch(rows.take(order), vectors)), torch.cat(parts), rtol=1e-5, atol=1e-5)


def test_hfa_projects_each_token_by_its_own_matrix():  # eq. 1
    layer = TokenLinear(3, 4, 5)
    layer.bias.data.normal_()
    x = torch.randn(7, 3, 4)
    expected = torch.stack([x[:, i] @ layer.weight[i] + layer.bias[i] for i in range(3)], dim=1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[:, 1:], start=1), expected[:, 1:])


def test_a_shared_projection_treats_all_tokens_alike():
    layer = TokenLinear(3, 4, 5, specific=False)
    x = torch.randn(7, 1, 4).expand(7, 3, 4)
    torch.testing.assert_close(layer(x)[:, 0], layer(x)[:, 2])
    assert layer.weight.shape == (1, 4, 5)


@pytest.mark.parametrize("residual", [True, False])
def test_hfa_layer_is_attention_and_a_token_specific_ffn(residual):
    config = CONFIG.model_copy(update={"residual": residual})
    layer, h = HFALayer(3, config, dropout=0.0), torch.randn(5, 3, 8)
    width, head = config.hfa_dim, config.hfa_dim // config.hfa_heads
    qkv = layer.project(h)
    q, k, v = (qkv[..., part * width : (part + 1) * width] for part in range(3))
    a = torch.empty(5, 3, width)
    for row in range(5):
        for first in range(0, width, head):
            at = slice(first, first + head)
            weights = torch.softmax(q[row, :, at] @ k[row, :, at].T / head**0.5, dim=-1)
            a[row, :, at] = weights @ v[row, :, at]
    a = a + h if residual else a
    normed = F.layer_norm(a, (width,)) if residual else a
    ffn = torch.stack(
        [
            F.silu(normed[:, i] @ layer.ffn.rise.weight[i] + layer.ffn.rise.bias[i]) @ layer.ffn.fall.weight[i]
            + layer.ffn.fall.bias[i]
            for i in range(3)
        ],
        dim=1,
    )
    torch.testing.assert_close(layer(h, qkv), a + ffn if residual else ffn)


def test_gfa_reads_m_composite_tokens_from_the_concatenation():  # eq. 2
    config = CONFIG.model_copy(update={"residual": False, "gfa_heads": 1})
    layer, h = GFALayer(24, config, dropout=0.0), torch.randn(5, 24)
    m, width = config.gfa_tokens, config.gfa_dim
    q, k, v = layer.qkv.weight.view(3, m, width, 24)  # the j-th block is the transpose of W̃_j
    tokens = []
    for j in range(m):
        scores = torch.stack([((h @ q[j].T) * (h @ k[i].T)).sum(-1) / width**0.5 for i in range(m)], dim=1)
        weights = torch.softmax(scores, dim=1)
        tokens.append(sum(weights[:, i : i + 1] * (h @ v[i].T) for i in range(m)))
    torch.testing.assert_close(layer(h), layer.ffn(torch.cat(tokens, dim=1)))


def test_dref_weighs_the_shared_and_the_own_expert():  # eqs. 3, 4
    dref, z, counts = DREF(6, 4, domains=3, routed=True, dropout=0.0), torch.randn(10, 6), (5, 0, 5)
    alpha = torch.softmax(dref.gate(z), dim=-1)
    own = torch.stack([dref.experts["0" if row < 5 else "2"](z[row]) for row in range(10)])
    expected = alpha[:, :1] * dref.shared(z) + alpha[:, 1:] * own
    torch.testing.assert_close(dref(z, routing_of(counts)), expected)
    torch.testing.assert_close(dref.alpha(z).sum(-1), torch.ones(10))


def test_dref_with_one_domain_is_its_dense_form():
    dref, z = DREF(6, 4, domains=1, routed=True, dropout=0.0), torch.randn(10, 6)
    alpha = dref.alpha(z)
    dense = alpha[:, :1] * dref.shared(z) + alpha[:, 1:] * dref.experts["0"](z)
    torch.testing.assert_close(dref(z, Routing.single(0, 1)), dense)


def test_an_expert_costs_only_its_own_rows():
    def flops(counts):
        dref = DREF(6, 4, domains=len(counts), routed=True, dropout=0.0)
        with FlopCounterMode(display=False) as counter:
            dref(torch.randn(sum(counts), 6), routing_of(counts))
        return counter.get_total_flops()

    assert flops((12,)) == flops((6, 6)) == flops((3, 5, 0, 4))


def test_dapga_is_attention_of_the_own_view_over_all_views_with_the_others_held_fixed():  # eqs. 5 to 8
    dapga, e = DAPGA(4, user_width=3, domain_dim=2, domains=3, dropout=0.0), torch.randn(6, 4, requires_grad=True)
    gamma = torch.rand(6, 4)
    counts = (2, 3, 1)
    domain = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    rows = []
    for row in range(6):
        views = [tower(e[row]) for tower in dapga.towers]
        o = torch.stack([view if k == domain[row] else view.detach() for k, view in enumerate(views)])
        q = dapga.query(o[domain[row]])
        weights = torch.softmax(dapga.key(o) @ q / 2.0, dim=0)  # √4
        rows.append(gamma[row] * (weights @ dapga.value(o)))
    expected, found = torch.stack(rows), dapga(e, gamma, routing_of(counts))
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(6, 4)
    wanted = [e, *dapga.towers.parameters(), dapga.query.weight, dapga.key.weight, dapga.value.weight]
    for mine, theirs in zip(
        torch.autograd.grad(found, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_gamma_lies_between_0_and_1_and_depends_on_user_and_domain():  # eq. 7
    dapga = DAPGA(4, user_width=3, domain_dim=2, domains=3, dropout=0.0)
    user = torch.randn(1, 3).expand(3, 3)
    gamma = dapga.gamma(user, torch.tensor([0, 0, 1]))
    assert ((gamma > 0) & (gamma < 1)).all()
    torch.testing.assert_close(gamma[0], gamma[1])  # where a row lies may change its last bit
    assert not torch.allclose(gamma[0], gamma[2])
    assert not torch.allclose(gamma[:1], dapga.gamma(user[:1] + 1, torch.tensor([0])))


@pytest.mark.parametrize(
    "switches",
    [
        ["hfa_layers=0", "gfa_layers=0"],  # Table 3: MLP
        ["hfa_token_specific=false", "gfa_layers=0"],  # Transformer
        ["gfa_layers=0"],  # heterogeneous attention
        ["dref=false", "dapga=false"],  # Table 4: HHFI
        ["dapga=false"],
        ["dref=false"],
        ["hfa_layers=2", "gfa_layers=2"],
        ["residual=false"],
    ],
    ids=lambda switches: ",".join(switches),
)
def test_every_ablation_runs_and_serves(switches, data):
    rows, vectors = data
    model = small_model("hhsft", *(f"model.hhsft.{switch}" for switch in switches)).eval()
    batch = to_batch(rows, vectors)
    task_losses(model(batch), batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    search = to_batch(search_only(rows), vectors)
    torch.testing.assert_close(model.search_export()(search), model(search), rtol=1e-5, atol=1e-5)


def test_the_search_export_keeps_all_towers_and_drops_the_other_domains():
    served = small_model("hhsft").search_export().network
    assert list(served.dref.experts) == list(served.heads) == ["0"]
    assert len(served.dapga.towers) == 3


def test_request_tokens_are_projected_once_a_request(data):
    rows, vectors = data
    model = small_model("hhsft", "model.encoder=mean").eval()

    calls = []
    hook = model.network.hfa[0].qkv.register_forward_hook(lambda _, inputs, out: calls.append(out.shape[:2]))
    batch = to_batch(rows, vectors)
    model(batch)
    hook.remove()
    tokens = model.network.tokenizer
    assert calls == [(batch.requests, len(tokens.request)), (batch.candidates, len(tokens.candidate))]
