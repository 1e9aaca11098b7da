"""Backbones against their published formulas, row by row and token by token."""

import pytest
import torch
import torch.nn.functional as F

from models.backbones import AutoInt, DCNv2, HiFormer, MLPBackbone, RankMixer, Wukong
from models.batches import to_batch
from models.inputs import Blocks, Widths
from models.layers import mix_tokens
from tests.models.small import small_config, small_model, some_rows
from uniscale.errors import ConfigError, ModelError

NAMED = {"user": {"id": 4, "clicks": 1, "orders": 1, "price": 1}, "item": {"id": 4, "vector": 2}, "cross": {"pair": 2}}
WIDTHS = Widths({"user": 7, "query": 3}, {"item": 6, "cross": 2}, 0, NAMED)
FEATURES = (("user", (4, 3)), ("query", (3,)), ("item", (4, 2)), ("cross", (2,)))


@pytest.fixture(scope="module")
def blocks(samples):
    batch = to_batch(*some_rows(samples))
    return Blocks(
        batch,
        {name: torch.randn(batch.requests, width) for name, width in WIDTHS.request.items()},
        {name: torch.randn(batch.candidates, width) for name, width in WIDTHS.candidate.items()},
        torch.zeros(batch.requests, 1, 0),
    )


def config(**sections):
    model = small_config().model
    return model.model_copy(
        update={name: getattr(model, name).model_copy(update=values) for name, values in sections.items()}
    )


def flat(blocks):
    """All embeddings of each candidate side by side, copied from its request."""
    return torch.cat([blocks.batch.expand(x) for x in blocks.request.values()] + list(blocks.candidate.values()), dim=1)


def tokens(backbone, blocks):
    """A token a feature, (N, 6, d)."""
    found = []
    for block, widths in FEATURES:
        value = blocks.batch.expand(blocks.request[block]) if block in blocks.request else blocks.candidate[block]
        parts = value.split(widths, dim=1)
        found += [linear(part) for linear, part in zip(backbone.tokenizer.maps[block], parts, strict=True)]
    return torch.stack(found, dim=1)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_mlp_reads_everything_concatenated(blocks):
    backbone = MLPBackbone(WIDTHS, config())
    close(backbone(blocks), backbone.mlp.rest(F.silu(backbone.mlp.first.linear(flat(blocks)))))


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("structure", ["stacked", "parallel"])
def test_dcnv2_multiplies_x0_into_every_cross_layer(blocks, rank, structure):
    backbone = DCNv2(WIDTHS, config(dcnv2={"layers": 3, "rank": rank, "structure": structure}))
    x0 = x = flat(blocks)
    for number in range(3):
        down = backbone.rest[number - 1] if number else backbone.first.linear
        if rank:
            up = backbone.up[number]
            assert down.bias is None and up.weight.shape == (18, 3)
            x = x0 * (x @ down.weight.T @ up.weight.T + up.bias) + x
        else:
            x = x0 * (x @ down.weight.T + down.bias) + x
    if structure == "stacked":
        expected = backbone.deep(x)
    else:
        expected = torch.cat([x, backbone.deep.rest(F.silu(backbone.deep.first.linear(x0)))], dim=1)
    close(backbone(blocks), expected)
    assert expected.shape[1] == backbone.width


def test_autoint_adds_unscaled_attention_to_a_projection_and_rectifies(blocks):
    backbone = AutoInt(WIDTHS, config(autoint={"layers": 2, "dim": 8, "heads": 2}))
    e = tokens(backbone, blocks)
    for layer in backbone.layers:
        w_q, w_k, w_v, w_res = layer.project.weight.chunk(4)
        heads = []
        for at in (slice(0, 4), slice(4, 8)):
            alpha = torch.softmax((e @ w_q[at].T) @ (e @ w_k[at].T).transpose(1, 2), dim=-1)
            heads.append(alpha @ (e @ w_v[at].T))
        e = F.relu(torch.cat(heads, dim=-1) + e @ w_res.T)
    close(backbone(blocks), e.flatten(1))
    assert backbone.width == 6 * 8


@pytest.mark.parametrize("layers", [1, 2])
def test_hiformer_attends_with_own_queries_over_composite_keys_and_values(blocks, layers):
    backbone = HiFormer(WIDTHS, config(hiformer={"layers": layers, "dim": 8, "heads": 2, "rank": 3}))
    of_features = tokens(backbone, blocks)
    e = torch.cat([of_features, backbone.task.expand(len(of_features), 1, -1)], dim=1)
    for layer in backbone.layers:
        normed = layer.norms[0](e)

        def composite(part, h, normed=normed):
            left = part.left.linear.weight[h * 3 : (h + 1) * 3]  # L of this head, (r, n·d)
            return (normed.flatten(1) @ left.T @ part.right[h]).unflatten(1, (7, 4))

        kept = range(7 - layer.queries, 7)
        out = []
        for number, i in enumerate(kept):
            q = normed[:, i] @ layer.query.weight[number] + layer.query.bias[number]
            read = []
            for h in range(2):
                k, v = composite(layer.key, h), composite(layer.value, h)
                alpha = torch.softmax((k @ q[:, h * 4 : h * 4 + 4, None])[..., 0] / 2.0, dim=1)  # √4
                read.append((alpha[..., None] * v).sum(1))
            token = e[:, i] + torch.cat(read, dim=1)
            rise, fall = layer.ffn.rise, layer.ffn.fall
            hidden = F.silu(layer.norms[1](token) @ rise.weight[number] + rise.bias[number])
            out.append(token + hidden @ fall.weight[number] + fall.bias[number])
        e = torch.stack(out, dim=1)
    assert e.shape[1] == 1  # the task token alone is left
    close(backbone(blocks), backbone.norm(e[:, 0]))


def test_wukong_sets_a_factorization_machine_beside_a_linear_compression(blocks):
    backbone = Wukong(WIDTHS, config(wukong={"layers": 2, "dim": 8, "fm_tokens": 2, "lcb_tokens": 3, "rank": 2}))
    x = tokens(backbone, blocks)
    for layer in backbone.layers:
        fm = (x @ x.transpose(1, 2)) @ layer.y  # all inner products first, as the definition has it
        fmb = layer.mlp(layer.norm_fm(fm.flatten(1))).view(-1, 2, 8)
        lcb = torch.einsum("on,bnd->bod", layer.lcb.weight, x)
        kept = torch.einsum("on,bnd->bod", layer.residual.weight, x) if x.shape[1] != 5 else x
        x = layer.norm(torch.cat([fmb, lcb], dim=1) + kept)
    close(backbone(blocks), x.flatten(1))


def test_token_mixing_gives_every_token_one_slice_of_all():
    x = torch.arange(16.0).view(1, 2, 8)
    assert mix_tokens(x).tolist() == [[[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]]
    assert torch.equal(mix_tokens(mix_tokens(x)), x)


@pytest.mark.parametrize("experts", [0, 2])
def test_rankmixer_mixes_tokens_and_gives_each_its_own_net(blocks, experts):
    backbone = RankMixer(
        WIDTHS, config(rankmixer={"layers": 1, "tokens": 4, "dim": 8, "ffn_multiple": 1, "experts": experts})
    )
    # 10 numbers of the request and 8 of the candidate: two tokens each
    shares = [(0, slice(0, 5)), (0, slice(5, 10)), (1, slice(10, 14)), (1, slice(14, 18))]
    x = []
    for number, (level, at) in enumerate(shares):
        linear, place = backbone.tokenizer.maps[level], number % 2
        x.append(flat(blocks)[:, at] @ linear.weight[place] + linear.bias[place])
    x = torch.stack(x, dim=1)
    layer = backbone.layers[0]
    mixed = torch.stack([torch.cat([x[:, t, 2 * h : 2 * h + 2] for t in range(4)], dim=1) for h in range(4)], dim=1)
    s = layer.norms[0](mixed + x)
    out = []
    for t in range(4):
        rise, fall = layer.ffn.rise, layer.ffn.fall
        hidden = F.silu(s[:, t] @ rise.weight[t] + rise.bias[t])
        if experts:
            gate = F.relu(s[:, t] @ layer.ffn.router.weight[t] + layer.ffn.router.bias[t])
            parts = [
                gate[:, j, None] * (hidden[:, 4 * j : 4 * j + 4] @ fall.weight[t][4 * j : 4 * j + 4]) for j in (0, 1)
            ]
            out.append(sum(parts) + fall.bias[t])
        else:
            out.append(hidden @ fall.weight[t] + fall.bias[t])
    close(backbone(blocks), layer.norms[1](torch.stack(out, dim=1) + s).mean(1))


def test_relu_gates_leave_experts_out():
    ffn = RankMixer(WIDTHS, config(rankmixer={"tokens": 4, "dim": 8, "experts": 2})).layers[0].ffn
    ffn.router.bias.data.zero_()
    gates = ffn.gates(torch.randn(50, 4, 8))
    assert (gates >= 0).all() and 0.2 < float((gates == 0).float().mean()) < 0.8


@pytest.mark.parametrize(("key", "wrong", "near"), [("encoder", "dinn", "din"), ("head", "mmoee", "mmoe")])
def test_an_unknown_part_is_refused_with_the_nearest_name(key, wrong, near):
    with pytest.raises(ConfigError, match=rf"model\.{key} = '{wrong}' is unknown; did you mean {near}\?"):
        small_model("dcnv2", f"model.{key}={wrong}")
    with pytest.raises(ModelError, match=r"model 'wukon' is unknown; did you mean wukong\?"):
        small_model("wukon")
