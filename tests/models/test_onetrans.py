"""OneTrans against one dense sequence a candidate, its causality, its schedule, and each switch of its ablations."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.attention import attend_part
from models.batches import to_batch
from models.onetrans_block import OneTransBlock, pyramid, tail
from models.optimisers import task_losses
from models.shared_attention import Rotation, attend_shared, fold, rotate, unfold
from models.zoo import build_model
from tests.models.small import small_config, small_model, some_rows
from tests.sample_folder import SPEC
from uniscale.hashing import hash_many

FORMS = ("onetrans", "onetrans_d", "onetrans_f")
CONFIG = small_config().model.onetrans


@pytest.fixture(scope="module")
def data(samples):
    rows, vectors = some_rows(samples)
    return rows.take(np.arange(9)), vectors


def built(name, *switches, types="[t1, t0]"):
    """A model whose weights have left their initial values; t2 is a type it does not know."""
    switches = [f"model.onetrans.{switch}" for switch in (f"behaviour_order={types}", *switches)]
    model = small_model(name, *switches).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        model.inputs.tables.weight[0] = 0.0
    return model


def turn(x, position):
    """Heads (…, 1, e) rotated to one position."""
    return rotate(x, Rotation.of(torch.tensor([position]), x.shape[-1]))


def maps(net, token, features):
    """Weight and bias of one token: of the S-tokens for None, else of that NS-token."""
    layer = net.sequence if token is None or net.feature is None else net.feature
    place = 0 if token is None or net.feature is None else token
    return [(part.weight[place], part.bias[place]) for part in features(layer)]


def dense(network, s, kinds, own):
    """One candidate as one sequence, token by token: s (n, d), then tokens `own` of kinds (None: S, i: NS i).

    Answers the S-tokens that the last block keeps, and the others.
    """
    config, count = CONFIG, len(s)
    s = list(s)
    own = list(own)
    for block, kept in zip(network.stack, network.widths_kept, strict=True):
        x = s + own
        kind = [None] * len(s) + kinds
        place = [*range(count - len(s), count), *range(count, count + len(own))]
        normed = [block.norms[0](token) for token in x]
        q, k, v = [], [], []
        for token, what in zip(normed, kind, strict=True):
            [(w, b)] = maps(block.query, what, lambda layer: [layer])
            q.append(token @ w + b[0])
            [(w, b)] = maps(block.key_value, what, lambda layer: [layer])
            both = token @ w + b[0]
            k.append(both[: config.dim])
            v.append(both[config.dim :])
        out = []
        for i in range(max(0, len(s) - kept), len(x)):
            seen = range(i + 1) if network.causal else range(len(x))
            heads = []
            for first in range(0, config.dim, config.dim // config.heads):
                at = slice(first, first + config.dim // config.heads)
                turned = [turn(y[at].view(1, 1, 1, -1), p).flatten() for y, p in
                          [(q[i], place[i]), *((k[j], place[j]) for j in seen)]]  # fmt: skip
                scores = torch.stack([turned[0] @ key for key in turned[1:]]) / (at.stop - at.start) ** 0.5
                weights = torch.softmax(scores, dim=0)
                heads.append(sum(w * v[j][at] for w, j in zip(weights, seen, strict=True)))
            z = x[i] + torch.cat(heads)
            (rise, b1), (fall, b2) = maps(block.ffn, kind[i], lambda layer: [layer.rise, layer.fall])
            out.append(z + F.silu(block.norms[1](z) @ rise + b1[0]) @ fall + b2[0])
        s, own = out[: len(out) - len(own)], out[len(out) - len(own) :]
    return s, own


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        ("onetrans", []),
        ("onetrans", ["tokenizer=group_wise", "fusion=timestamp_agnostic"]),
        ("onetrans", ["mixed=false", "pyramid=false"]),
        ("onetrans", ["causal=false"]),
        ("onetrans_f", []),
        ("onetrans_f", ["tokenizer=group_wise"]),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_two_stages_are_one_sequence_of_each_candidate(name, switches, data):
    model, (rows, vectors) = built(name, *switches), data
    network, batch = model.network, to_batch(rows.take(np.arange(4)), vectors)
    blocks = model.inputs(batch)
    s, exists = network.sequence(blocks)
    request, candidate = network.features(blocks)
    specific = network.candidate_specific(blocks)
    logits = network(blocks)
    for row in range(0, batch.candidates, 5):
        r = batch.request_of[row]
        own = [] if request is None else list(request[r])
        if network.own_sequence:
            known = min(int(batch.behaviour_mask[r].sum()), network.own_sequence)
            if known < network.own_sequence:
                continue  # its K places are not contiguous: the padding law covers it
            tokens, kinds = [*specific[row], *own, *candidate[row]], [None] * known
        else:
            tokens, kinds = [*own, *specific[row], *candidate[row]], []
        kinds += list(range(len(tokens) - len(kinds)))
        last, out = dense(network, s[r][exists[r]], kinds, tokens)
        mean = torch.stack([network.norm(x) for x in last]).mean(0) if last else torch.zeros(CONFIG.dim)
        normed = [network.norm(x) for x in out]
        sequence, features = normed[: network.own_sequence], normed[network.own_sequence :]
        # the read-out's input: S-mean and request's NS-tokens, then the candidate's, then the mean of B_c
        parts = [mean, *features, *([torch.stack(sequence).mean(0)] if sequence else [])]
        hidden = F.silu(network.readout.linear(torch.cat(parts)))
        torch.testing.assert_close(logits[row], network.head(hidden), rtol=1e-4, atol=1e-4)


def test_changing_a_behaviour_never_changes_what_comes_before_it(data):
    model, (rows, vectors) = built("onetrans"), data
    batch = to_batch(rows, vectors)
    length = batch.behaviour_mask.shape[1]
    full = torch.nonzero(batch.behaviour_mask.all(1)).flatten()
    assert len(full)
    before = model.network.stage_one(model.inputs(batch))
    for j in (2, length - 2):
        content = batch.behaviour_content.clone()
        content[full, j] += 1.0
        after = model.network.stage_one(model.inputs(replace(batch, behaviour_content=content)))
        for (k, v), (new_k, new_v) in zip(before.keys, after.keys, strict=True):
            column = k.shape[2] - length + j  # histories lie at the end of their row
            for old, new in ((k[full], new_k[full]), (v[full], new_v[full])):
                assert torch.equal(old[:, :, : max(column, 0)], new[:, :, : max(column, 0)])
                assert not torch.equal(old[:, :, max(column, 0) :], new[:, :, max(column, 0) :])


def test_an_ns_token_reads_itself_and_those_before_it(data):
    model, (rows, vectors) = built("onetrans", "tokenizer=group_wise"), data
    network, batch = model.network, to_batch(rows, vectors)
    blocks = model.inputs(batch)
    side = network.stage_one(blocks)
    request, candidate = network.features(blocks)
    candidate = torch.cat([network.candidate_specific(blocks), candidate], dim=1)
    request, candidate = (x.detach().requires_grad_() for x in (request, candidate))
    last = []
    hook = network.norm.register_forward_hook(lambda _, given, out: last.append(given[0]))
    network.stage_two(blocks, side, request, candidate, network.own_exists(blocks, candidate.shape[1]))
    hook.remove()
    of_request, of_candidate = last
    for i in range(request.shape[1]):
        [gradient] = torch.autograd.grad(of_request[:, i].square().sum(), request, retain_graph=True)
        assert [bool(gradient[:, j].any()) for j in range(request.shape[1])] == [
            j <= i for j in range(request.shape[1])
        ]
    for i in range(candidate.shape[1]):
        to_request, to_candidate = torch.autograd.grad(
            of_candidate[:, i].square().sum(), (request, candidate), retain_graph=True
        )
        assert to_request.abs().sum((0, 2)).all()
        assert [bool(to_candidate[:, j].any()) for j in range(candidate.shape[1])] == [
            j <= i for j in range(candidate.shape[1])
        ]


def test_one_set_of_parameters_for_all_tokens_is_the_mixed_form_with_equal_weights(data):
    (rows, vectors), shared, mixed = data, built("onetrans", "mixed=false"), built("onetrans")
    tied = mixed.state_dict()
    for name, value in shared.state_dict().items():
        tied[name] = value
        own = name.replace(".sequence.", ".feature.")
        if own in tied and own != name:
            tied[own] = value.expand_as(tied[own])
    mixed.load_state_dict(tied)
    batch = to_batch(rows, vectors)
    torch.testing.assert_close(mixed(batch), shared(batch), rtol=1e-5, atol=1e-5)
    d, hidden, tokens = CONFIG.dim, CONFIG.ffn_multiple * CONFIG.dim, CONFIG.ns_tokens + 1
    one = (d + 1) * d + (d + 1) * 2 * d + (d + 1) * hidden + (hidden + 1) * d
    count = [sum(p.numel() for p in model.network.parameters()) for model in (mixed, shared)]
    assert count[0] - count[1] == CONFIG.layers * tokens * one


@pytest.mark.parametrize(
    ("length", "features", "layers", "expected"),
    [  # the two sizes of the paper: linear, the middle blocks rounded to 32
        (1190, 12, 6, (1190, 960, 704, 480, 256, 12)),
        (1500, 16, 8, (1500, 1280, 1088, 864, 640, 448, 224, 16)),
        (32, 12, 3, (32, 32, 12)),
        (40, 12, 5, (40, 32, 32, 32, 12)),
        (20, 12, 4, (20, 20, 12, 12)),  # 17.3 and 14.7 are nearer to 32 and 0: never above L_S, never below L_NS
        (10, 12, 2, (10, 10)),  # a history shorter than the features
    ],
)
def test_the_pyramid_is_linear_from_all_s_tokens_to_as_many_as_ns_tokens(length, features, layers, expected):
    config = CONFIG.model_copy(update={"layers": layers, "pyramid_multiple": 32})
    assert pyramid(length, features, config) == expected
    flat = config.model_copy(update={"pyramid": False})
    assert pyramid(length, features, flat) == (length,) * layers


def test_each_block_reads_what_the_one_before_kept_and_the_pyramid_saves_work(data):
    rows, vectors = data
    batch = to_batch(rows, vectors)
    length = batch.behaviour_mask.shape[1]
    flops = {}
    for on in (True, False):
        model = built("onetrans", f"pyramid={on}")
        kept = model.network.widths_kept
        assert kept == ((10, 8, 4) if on else (10, 10, 10))
        blocks = model.inputs(batch)
        with FlopCounterMode(display=False) as counter:
            side = model.network.stage_one(blocks)
        flops[on] = counter.get_total_flops()
        assert [k.shape[2] for k, _ in side.keys] == ([length, length, 8] if on else [length] * 3)
    assert flops[True] < 0.9 * flops[False]


def test_the_tail_is_filled_with_zeros_ahead():
    x = torch.arange(1.0, 7.0).view(1, 3, 2)
    assert torch.equal(tail(x, 2), x[:, 1:])
    assert torch.equal(tail(x, 5)[0, :, 0], torch.tensor([0.0, 0.0, 1.0, 3.0, 5.0]))
    assert tail(torch.ones(1, 2, dtype=torch.bool), 3).tolist() == [[False, True, True]]


def sequences(fusion, sep=True):
    """S-tokens of five behaviours, types click, purchase, other, purchase, (none): readable numbers for tokens."""
    switches = (f"fusion={fusion}", f"sep={sep}")
    network = built("onetrans", *switches, types="[purchase, cart, click]").network
    types = torch.from_numpy(hash_many(["click", "purchase", "glance", "purchase", None])).view(1, 5)
    column = network.sequence.type_column
    ids = torch.zeros(1, 5, column + 1, dtype=torch.int64)
    ids[:, :, column] = types
    mask = torch.tensor([[True, True, True, True, False]])
    batch = type("Behaviours", (), {"behaviour_ids": ids, "behaviour_mask": mask})
    sequence = network.sequence.sequence_of(batch)
    assert sequence.tolist() == [[3, 1, 0, 1, 0]]
    if network.sequence.sep is not None:
        with torch.no_grad():
            network.sequence.sep.fill_(-1.0)
    order, exists = network.sequence.order(sequence, mask)
    events = torch.arange(5.0).view(1, 5, 1).expand(1, 5, CONFIG.dim)
    return network.sequence.arrange(events, order)[0, exists[0], 0].tolist(), exists[0].tolist()


def test_sep_stands_between_sequences_in_the_order_of_impact():
    SEP = -1.0
    tokens, exists = sequences("timestamp_agnostic")
    assert tokens == [2.0, SEP, 1.0, 3.0, SEP, SEP, 0.0]  # other | purchases | (no cart) | click
    assert exists == [False] + [True] * 7
    assert sequences("timestamp_agnostic", sep=False)[0] == [2.0, 1.0, 3.0, 0.0]
    assert sequences("timestamp_aware")[0] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", FORMS)
def test_no_candidate_sees_another(name, data):
    model, (rows, vectors) = built(name, "tokenizer=group_wise"), data
    keep = np.random.default_rng(0).random(rows.candidates) < 0.5
    keep[rows.offsets[:-1]] = True
    expected = model(to_batch(rows, vectors))[torch.from_numpy(keep)]
    torch.testing.assert_close(model(to_batch(rows.keep(keep), vectors)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokenizer", ["auto_split", "group_wise"])
def test_what_a_request_decides_is_computed_once_a_request(tokenizer, data):
    model, (rows, vectors) = built("onetrans", f"tokenizer={tokenizer}"), data
    network, batch = model.network, to_batch(rows, vectors)
    calls = []
    hooks = [
        part.register_forward_hook(lambda _, given, out: calls.append(out.shape[:2]))
        for block in network.stack
        for part in (block.key_value, block.ffn)
    ]
    model(batch)
    for hook in hooks:
        hook.remove()
    r, n, length = batch.requests, batch.candidates, batch.behaviour_mask.shape[1]
    last = network.widths_kept[-1]  # L_NS
    stage_one = [(r, length), (r, length), (r, length), (r, 8), (r, 8), (r, last)]  # keys and FFN of each block
    widths = model.inputs.widths
    of_request, tokens = (len(widths.request), len(widths.candidate)) if tokenizer == "group_wise" else (0, 3)
    stage_two = [(r, of_request)] * bool(of_request) * 2 + [(n, tokens + 1)] * 2  # and the candidate-specific token
    assert calls == stage_one + 3 * stage_two


@pytest.mark.parametrize(
    "switches",
    list(itertools.product(("auto_split", "group_wise"), ("timestamp_aware", "timestamp_agnostic"), ("true", "false"))),
    ids=",".join,
)
def test_every_ablation_trains(switches, data):
    rows, vectors = data
    tokenizer, fusion, causal = switches
    model = built("onetrans_d", f"tokenizer={tokenizer}", f"fusion={fusion}", f"causal={causal}")
    batch = to_batch(rows, vectors)
    task_losses(model(batch), batch).sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.to_dense().any(), label


def test_events_do_not_know_the_time_of_the_request(data):
    rows, vectors = data
    model, batch = built("onetrans"), to_batch(rows, vectors)
    now = model.inputs(batch)
    later = model.inputs(replace(batch, behaviour_age=batch.behaviour_age + 86_400.0))
    assert not torch.equal(later.behaviours, now.behaviours)
    first, second = (model.network.stage_one(blocks).keys for blocks in (now, later))
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_rotary_products_depend_on_the_difference_of_positions():
    q, k = torch.randn(2, 3, 1, 8), torch.randn(2, 3, 1, 8)
    at = lambda i, j: (turn(q, i) * turn(k, j)).sum(-1)  # noqa: E731
    torch.testing.assert_close(at(5, 2), at(100_003, 100_000), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(at(5, 2), at(5, 3))
    torch.testing.assert_close(turn(q, 0), q)


def test_attention_in_two_parts_is_attention_over_both(data):
    rows, vectors = data
    batch = to_batch(rows, vectors)
    q, own_k, own_v = (torch.randn(batch.candidates, 2, 3, 4, requires_grad=True) for _ in range(3))
    k, v = (torch.randn(batch.requests, 2, 5, 4, requires_grad=True) for _ in range(2))
    valid = torch.rand(batch.requests, 5) < 0.5
    valid[0] = False  # a request without anything shared
    causal = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    found = attend_shared(q, (k, v, valid), (own_k, own_v, causal), batch)
    both = torch.cat([batch.expand(k), own_k], dim=2), torch.cat([batch.expand(v), own_v], dim=2)
    of_shared = batch.expand(valid).unsqueeze(1).expand(-1, 3, -1)
    mask = torch.cat([of_shared, causal[0].expand(batch.candidates, -1, -1)], dim=2)
    expected = F.scaled_dot_product_attention(q, *both, attn_mask=mask.unsqueeze(1))
    torch.testing.assert_close(found, expected)
    with torch.inference_mode():  # another kernel
        torch.testing.assert_close(attend_shared(q, (k, v, valid), (own_k, own_v, causal), batch), expected)
    upstream = torch.randn_like(found)
    wanted = (q, k, v, own_k, own_v)
    for mine, theirs in zip(
        torch.autograd.grad(found, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(unfold(fold(q, batch), batch, 3), q)


@pytest.mark.parametrize("grad", [True, False])
def test_a_part_answers_with_its_log_sum_exp_and_an_empty_one_weighs_nothing(grad):
    q, k, v = torch.randn(3, 2, 6, 4), torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 4)
    mask = torch.rand(3, 1, 1, 5) < 0.6
    mask[0], mask[1:, ..., 0] = False, True
    with torch.set_grad_enabled(grad):
        out, total = attend_part(q, k, v, mask)
        nothing, of_nothing = attend_part(q, k[:, :, :0], v[:, :, :0], mask[..., :0])
    scores = (q @ k.transpose(-1, -2) / 2.0).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(total[1:], scores[1:].logsumexp(-1, keepdim=True))
    torch.testing.assert_close(out[1:], torch.softmax(scores[1:], -1) @ v[1:])
    assert (total[0] < -1e30).all() and out[0].isfinite().all()
    assert not nothing.any() and (of_nothing < -1e30).all()


def test_a_block_without_shared_weights_has_a_map_for_each_ns_token():
    block = OneTransBlock(3, CONFIG, dropout=0.0)
    assert block.query.feature.weight.shape == (3, CONFIG.dim, CONFIG.dim)
    assert block.query.sequence.weight.shape == (1, CONFIG.dim, CONFIG.dim)
    assert SPEC.max_behaviours == 10  # the sizes above rest on it


@pytest.mark.parametrize("name", [*FORMS, "mtgr"])
def test_a_dataset_without_history_is_ranked_by_its_features(name, data):
    rows, vectors = data
    spec = replace(SPEC, features=tuple(f for f in SPEC.features if f.level != "behaviour"))
    model = build_model(name, spec, small_config().model, seed=0)
    none = replace(rows, behaviour_offsets=np.zeros_like(rows.behaviour_offsets), spec=spec)
    none = replace(none, behaviour_ids=np.zeros((0, 0), np.int64), behaviour_ts=np.zeros(0, np.int64))
    none = replace(none, behaviour_numbers=np.zeros((0, 0), np.float32), behaviour_index=np.zeros(0, np.int32))
    logits = model(to_batch(none, vectors))
    assert logits.isfinite().all() and len(logits[:, 0].unique()) > 1
