"""EST against its equations (est.txt 5), its economy a request, and its ablations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.batches import to_batch
from models.est import FeatureTokens
from models.est_layers import LCA, Behaviours, FullAttention, merge, partial_attention
from models.optimisers import task_losses
from models.zoo import build_model
from tests.models.small import small_config, small_model, some_rows
from tests.sample_folder import SPEC
from uniscale.errors import ConfigError, ModelError

WIDTH, HEADS = 8, 2


@pytest.fixture(scope="module")
def data(samples):
    return some_rows(samples)


@pytest.fixture(scope="module")
def batch(data):
    return to_batch(*data)


def behaviours_of(batch, k=3):
    """Masks of B_u and of k searched behaviours, of which some rows have none."""
    searched = torch.rand(batch.candidates, k) < 0.6
    place = torch.zeros(batch.candidates, k, dtype=torch.int64)
    return Behaviours(batch, batch.behaviour_mask, place, searched, None, None)


def tokens(batch, b, n_r=2, n_c=3):
    """Tokens of the request, of the candidates, B_u and B_c."""
    return (
        torch.randn(batch.requests, n_r, WIDTH),
        torch.randn(batch.candidates, n_c, WIDTH),
        torch.randn(*b.user_mask.shape, WIDTH),
        torch.randn(*b.place.shape, WIDTH),
    )


def test_attention_in_parts_is_one_softmax_over_all_keys_and_zero_without_a_key():
    q, k, v = torch.randn(4, 3, WIDTH), torch.randn(4, 6, WIDTH), torch.randn(4, 6, WIDTH)
    mask = torch.rand(4, 1, 6) < 0.5
    mask[0], mask[1, :, :2], mask[2, :, 2:], mask[2, :, 0] = False, False, False, True
    parts = [partial_attention(q, k[:, at], v[:, at], mask[..., at], HEADS) for at in (slice(2), slice(2, 6))]
    found = merge(parts)
    assert not found[0].any()
    for row in range(1, 4):
        kept, head = mask[row, 0], WIDTH // HEADS
        for first in range(0, WIDTH, head):
            at = slice(first, first + head)
            weights = torch.softmax(q[row, :, at] @ k[row, kept][:, at].T / head**0.5, dim=-1)
            torch.testing.assert_close(found[row, :, at], weights @ v[row, kept][:, at], rtol=1e-6, atol=1e-6)


def test_a_fully_masked_row_gives_finite_gradients():
    q, k, v = (torch.randn(2, 3, WIDTH, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[[False] * 3], [[True] * 3]])
    merge([partial_attention(q, k, v, mask, HEADS)]).sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    assert not v.grad[0].any()


def test_lca_is_full_attention_without_the_blocks_bb_bn_and_nn(batch):
    b = behaviours_of(batch)
    request, candidate, user, searched = tokens(batch, b)
    lca, full = LCA(5, WIDTH, HEADS), FullAttention(WIDTH, HEADS, masked=("BB", "BN", "NN"))
    with torch.no_grad():  # tied projections
        lca.query.weight.copy_(full.query.weight.T.expand(5, -1, -1))
        lca.out.weight.copy_(full.out.weight.T.expand(5, -1, -1))
        lca.key_value.weight.copy_(full.key_value.weight)
    found = lca(request, candidate, lca.key_value(user), lca.key_value(searched), b)

    seen = torch.cat([batch.expand(user), searched], dim=1)
    x = torch.cat([seen, batch.expand(request), candidate], dim=1)
    masks = torch.cat([batch.expand(b.user_mask), b.searched_mask], dim=1)
    expected = full(x, masks)
    assert not expected[:, : seen.shape[1]].any()  # B without any key: zero, not NaN
    torch.testing.assert_close(found, expected[:, seen.shape[1] :], rtol=1e-6, atol=1e-6)
    assert (~masks.any(1)).any()
    assert not found[~masks.any(1)].any()


@pytest.mark.parametrize("masked", ["BB", "BN", "NB", "NN"])
def test_a_masked_block_cuts_just_its_keys_from_its_queries(masked):  # Table 1
    full, x = FullAttention(WIDTH, 1, masked=(masked,)), torch.randn(1, 5, WIDTH, requires_grad=True)
    found = full(x, torch.ones(1, 3, dtype=torch.bool))
    sides = {"B": slice(0, 3), "N": slice(3, 5)}
    for query in "BN":
        (gradient,) = torch.autograd.grad(found[:, sides[query]].sum(), x, retain_graph=True)
        for key in "BN":
            own = query == key  # a query's own row reaches the result through its W_Q, whatever is masked
            assert bool(gradient[:, sides[key]].any()) == (query + key != masked or own)


def test_lca_costs_grow_linearly_with_the_number_of_behaviours(batch):
    lca = LCA(5, WIDTH, HEADS)

    def flops(length):
        b = replace(behaviours_of(batch), user_mask=torch.ones(batch.requests, length, dtype=torch.bool))
        request, candidate, user, searched = tokens(batch, b)
        with FlopCounterMode(display=False) as counter:
            lca(request, candidate, lca.key_value(user), lca.key_value(searched), b)
        return counter.get_total_flops()

    assert flops(60) - flops(40) == flops(40) - flops(20) > 0


def test_b_u_is_worked_on_once_a_request_and_the_requests_own_tokens_once_in_the_first_layer(data):
    model = small_model("est").eval()
    batch = to_batch(*data)
    layers, network = model.network.layers, model.network
    seen, queried = [], []
    for layer in layers:
        layer.of_behaviours.register_forward_hook(lambda _, inputs, out: seen.append(tuple(out.shape[:2])))
        layer.lca.query.register_forward_hook(lambda _, inputs, out: queried.append(tuple(out.shape[:2])))
    model(batch)
    config = small_config().model.est
    of_request, of_candidate = (
        part.last.weight.shape[0] for part in (network.request_tokens, network.candidate_tokens)
    )
    user, searched = (batch.requests, config.user_behaviours), (batch.candidates, config.candidate_behaviours)
    assert seen == [user, searched] * len(layers)
    assert queried == [
        (batch.candidates, of_candidate),
        (batch.requests, of_request),
        (batch.candidates, of_request + of_candidate),
    ]


def test_the_similarities_are_computed_once_and_reused_by_all_layers(data):
    model, shared = small_model("est", "model.est.layers=3").eval(), []
    for layer in model.network.layers:
        layer.register_forward_pre_hook(lambda _, inputs: shared.append(inputs[1]))
    model(to_batch(*data))
    assert len(shared) == 3
    assert shared[0] is shared[1] is shared[2]
    assert not shared[0].of_user.similarity.requires_grad


def test_b_u_is_the_newest_part_of_the_history(data):
    model, batch = small_model("est"), to_batch(*data)
    place, mask = model.network.newest(batch)
    for request, whole in enumerate(batch.behaviour_mask):
        length = int(whole.sum())
        assert place[request][mask[request]].tolist() == list(range(max(0, length - 7), length))


def test_every_feature_has_a_tokenizer_of_its_own():  # 5.2.1
    features = {"a": 1, "b": 3, "c": 1}
    tokenizer, x = FeatureTokens(features, WIDTH), torch.randn(4, 5, requires_grad=True)
    found = tokenizer(x)
    assert found.shape == (4, 3, WIDTH)
    reached = []
    for token in range(3):
        (gradient,) = torch.autograd.grad(found[:, token].sum(), x, retain_graph=True)
        reached.append(gradient.any(0).nonzero().flatten().tolist())
    assert reached == [[0], [4], [1, 2, 3]]  # by width, then in order


def test_no_token_holds_content_unless_as_side_information(data):
    rows, vectors = data
    batch = to_batch(rows, vectors)
    noise = torch.randn_like(batch.candidate_text)
    other = replace(batch, candidate_text=noise)
    for content, changes in (("[]", False), ("[side_information]", True)):
        model = small_model("est", f"model.est.content={content}").eval()
        # The query's cosine to the title is a cross feature; without the query's text it is zero.
        silent = [replace(b, query_text=torch.zeros_like(b.query_text)) for b in (batch, other)]
        assert torch.equal(model(silent[0]), model(silent[1])) != changes


@pytest.mark.parametrize(
    "switches",
    [
        ["attention=full", "csa=false"],  # Table 4: Full-Attention
        ["csa=false"],  # Table 4: LCA alone
        *(["attention=full", "csa=false", f"masked_blocks=[{b}]"] for b in ("BB", "BN", "NN", "NB")),  # Table 1
        ["content=[]"],  # Table 2
        ["content=[side_information]"],
        ["content=[semantic_id]"],
        ["content=[simtier, side_information]"],
        ["user_behaviours=99"],
        ["layers=1"],
    ],
    ids=lambda switches: ",".join(switches),
)
def test_every_ablation_trains_and_ignores_padding(switches, data):
    rows, vectors = data
    model = small_model("est", *(f"model.est.{switch}" for switch in switches))
    batch = to_batch(rows, vectors)
    task_losses(model(batch), batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    padded = to_batch(rows, vectors, length=batch.behaviour_mask.shape[1] + 5)
    torch.testing.assert_close(model(padded), model(batch), rtol=1e-5, atol=1e-5)


def test_candidates_of_a_request_do_not_see_one_another(data):
    rows, vectors = data
    model = small_model("est").eval()
    alone = rows.keep(np.arange(rows.candidates) == 3)
    torch.testing.assert_close(model(to_batch(alone, vectors))[0], model(to_batch(rows, vectors))[3])


def test_a_dataset_without_behaviours_and_switches_that_contradict_are_refused():
    spec = replace(SPEC, features=tuple(f for f in SPEC.features if f.level != "behaviour"))
    with pytest.raises(ModelError, match="est reads behaviours and the dataset has none"):
        build_model("est", spec, small_config().model, seed=0)
    with pytest.raises(ConfigError, match="full attention takes the place of CSA"):
        small_config("model.est.attention=full")
    with pytest.raises(ConfigError, match="masked_blocks"):
        small_config("model.est.masked_blocks=[BB]")
