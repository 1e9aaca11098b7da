"""Heads against their published formulas, row by row, and what a domain's rows may teach."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.batches import to_batch
from models.heads import HEADS
from models.heads.base import HeadSizes
from models.inputs import Blocks, Widths
from models.optimisers import task_losses
from tests.models.small import small_config, small_model, some_rows

BLOCKS = Widths({"user": 3, "query": 2}, {"item": 4, "cross": 2}, 0)
MODEL = small_config().model
WIDTH, DOMAINS, TASKS = 6, 3, 2


@pytest.fixture(scope="module")
def blocks(samples):
    batch = to_batch(*some_rows(samples))
    return Blocks(
        batch,
        {name: torch.randn(batch.requests, width) for name, width in BLOCKS.request.items()},
        {name: torch.randn(batch.candidates, width) for name, width in BLOCKS.candidate.items()},
        torch.zeros(batch.requests, 1, 0),
    )


def build(name):
    """A head whose parameters have all left their initial values."""
    head = HEADS[name](HeadSizes(WIDTH, BLOCKS, DOMAINS, TASKS, MODEL))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return head


def check(head, blocks, by_hand):
    """The head's logits are those of `by_hand(x, domain)` on some rows of every domain."""
    x = torch.randn(blocks.batch.candidates, WIDTH)
    domain = blocks.batch.expand(blocks.batch.domain)
    found = head(x, blocks, head.embed(blocks))
    rows = range(0, len(x), 5)
    assert {int(domain[row]) for row in rows} == {0, 1, 2}
    expected = torch.stack([by_hand(x[row], int(domain[row])) for row in rows])
    torch.testing.assert_close(found[list(rows)], expected, rtol=1e-4, atol=1e-5)


def gated(gate, x, outputs):
    return torch.softmax(gate @ x, dim=0) @ torch.stack(outputs)


def test_shared_bottom_puts_a_domains_towers_on_one_net(blocks):
    head = build("shared_bottom")

    def by_hand(x, d):
        return torch.cat([tower(head.bottom(x)) for tower in head.own[str(d)].towers])

    check(head, blocks, by_hand)


def mmoe(head, own, x):
    f = [net(x) for net in head.experts.nets]
    gates = own.gates.weight.chunk(TASKS)
    return torch.cat([tower(gated(gate, x, f)) for tower, gate in zip(own.towers, gates, strict=True)])


def test_mmoe_mixes_shared_experts_by_a_gate_for_each_task_of_each_domain(blocks):
    head = build("mmoe")
    check(head, blocks, lambda x, d: mmoe(head, head.own[str(d)], x))


def test_ple_extracts_own_and_shared_experts_layer_by_layer(blocks):
    head = build("ple")

    def by_hand(x, d):
        own, g, common = head.own[str(d)], [x, x], x
        for j in (0, 1):
            shared = [net(common) for net in head.shared[j].nets]
            apart = [[net(g[k]) for net in own.layers[j].experts[k].nets] for k in (0, 1)]
            if j == 0:
                following = gated(head.gates[0].weight, common, [*apart[0], *apart[1], *shared])
            g = [gated(own.layers[j].gates[k].weight, g[k], [*apart[k], *shared]) for k in (0, 1)]
            common = following
        return torch.cat([own.towers[k](g[k]) for k in (0, 1)])

    check(head, blocks, by_hand)


def star(head, blocks, d, z, mean, variance):
    own = head.own[str(d)]
    logit = (z - mean) / torch.sqrt(variance + 1e-5) * (head.scale * own.scale) + head.shift + own.shift
    for number, layer in enumerate(head.layers):
        logit = F.silu(logit) if number else logit
        logit = (layer.weight * own.weights[number]) @ logit + layer.bias + own.biases[number]
    auxiliary = F.silu(head.auxiliary.linear(torch.cat([head.indicator.weight[d], z])))
    return logit + head.auxiliary_out(auxiliary)


def test_star_multiplies_a_domains_weights_into_the_shared_ones(blocks):
    head = build("star").eval()
    for own in head.own.values():
        own.mean.normal_()
        own.variance.uniform_(0.5, 2.0)
    check(head, blocks, lambda x, d: star(head, blocks, d, x, head.own[str(d)].mean, head.own[str(d)].variance))


def test_partitioned_norm_takes_each_domains_own_moments_and_remembers_them(blocks):
    head, x = build("star"), torch.randn(blocks.batch.candidates, WIDTH)
    domain = blocks.batch.expand(blocks.batch.domain)
    found = head(x, blocks, blocks)
    for d in range(DOMAINS):
        rows = x[domain == d]
        mean, variance = rows.mean(0), rows.var(0, correction=0)
        expected = star(head, blocks, d, rows[0], mean, variance)
        torch.testing.assert_close(found[domain == d][0], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head.own[str(d)].mean, 0.1 * mean)
        torch.testing.assert_close(head.own[str(d)].variance, 0.9 + 0.1 * variance)


def test_hmoe_weighs_every_domains_scores_by_the_own_label_gate(blocks):
    head = build("hmoe")

    def by_hand(x, d):
        scores = torch.stack([mmoe(head, tower, x) for tower in head.towers])  # (D, T)
        weights = torch.softmax(head.own[str(d)](x).view(DOMAINS, TASKS), dim=0)
        return (weights * scores).sum(0)

    check(head, blocks, by_hand)


def gate_nu(gate, x):
    return 2 * torch.sigmoid(gate.last(F.relu(gate.first.linear(x))))


def test_pepnet_gates_embeddings_by_domain_and_hidden_units_by_user_and_item(blocks):
    head, batch = build("pepnet"), blocks.batch
    x = torch.randn(batch.candidates, WIDTH)
    embedded = head.embed(blocks)
    found = head(x, blocks, embedded)
    for row in range(0, batch.candidates, 9):
        request = batch.request_of[row]
        e = torch.cat([blocks.request[name][request] for name in BLOCKS.request])
        e = torch.cat([e, *(blocks.candidate[name][row] for name in BLOCKS.candidate)])
        known = torch.cat([head.indicator.weight[batch.domain[request]], e])
        o_ep = gate_nu(head.epnet, known) * e
        names = (*BLOCKS.request, *BLOCKS.candidate)
        torch.testing.assert_close(torch.cat([embedded.candidate[name][row] for name in names]), o_ep)
        prior = torch.cat([blocks.request["user"][request], blocks.candidate["item"][row], o_ep])
        logits = []
        for task in range(TASKS):
            h = x[row]
            for number, gate in enumerate(head.ppnet):
                layer = head.layers[number]
                h = F.silu(h @ layer.weight[task] + layer.bias[task, 0])
                h = gate_nu(gate, prior).chunk(TASKS)[task] * h
            logits.append(h @ head.layers[-1].weight[task] + head.layers[-1].bias[task, 0])
        torch.testing.assert_close(found[row], torch.cat(logits), rtol=1e-4, atol=1e-5)


def test_pepnets_gates_do_not_train_what_they_only_read(blocks):
    head = build("pepnet")
    item = blocks.candidate["item"].clone().requires_grad_()
    read = Blocks(blocks.batch, blocks.request, blocks.candidate | {"item": item}, blocks.behaviours)
    gated_item = head.embed(read).candidate["item"]
    gated_item.sum().backward()
    torch.testing.assert_close(item.grad, (gated_item / item).detach())  # δ alone, as if it were a constant


@pytest.mark.parametrize("name", HEADS)
def test_search_rows_alone_leave_other_domains_parts_without_gradient(name, samples):
    rows, vectors = some_rows(samples)
    model = small_model("dlrm_mlp", f"model.head={name}")
    batch = to_batch(rows.take(np.flatnonzero(rows.domain == 0)), vectors)
    task_losses(model(batch), batch).sum().backward()
    own, others = [], []
    for label, parameter in model.network.head.named_parameters():
        found = re.match(r"(own|towers)\.(\d+)\.", label)
        if found:
            (own if found[2] == "0" else others).append(parameter.grad)
        elif label == "indicator.weight":
            own.append(parameter.grad[0])
            others.append(parameter.grad[1:])
    assert all(gradient is None or not gradient.any() for gradient in others)
    assert all(gradient is not None and gradient.any() for gradient in own)
    assert bool(others) == (name != "single")


@pytest.mark.parametrize("name", HEADS)
def test_a_head_for_one_domain_keeps_that_domains_parts_and_scores_alone(name, blocks):
    head = build(name).eval()
    served = head.fixed_domain(1)
    assert set(served.own) <= {"1"} and len(head.own) in (0, DOMAINS)
    x = torch.randn(blocks.batch.candidates, WIDTH)
    rows = blocks.batch.expand(blocks.batch.domain) == 1
    found, expected = (one(x, blocks, one.embed(blocks))[rows] for one in (served, head))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
