"""Layers beside the same layers of kept-up packages, with copied weights; skipped where a package is not installed.

torch-rechub is a development dependency; fuxictr (which brings ray) and torchrec (which brings fbgemm) are not.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from models.backbones.autoint import InteractingLayer
from models.backbones.dcnv2 import DCNv2
from models.batches import to_batch
from models.encoders.din import LocalActivation
from models.heads import HEADS
from models.heads.base import HeadSizes
from models.inputs import Blocks, Widths
from tests.models.small import small_config, some_rows
from uniscale.config import override

WIDTHS = Widths({"user": 3, "query": 2}, {"item": 4, "cross": 2}, 0)
WIDTH, TASKS, EXPERTS = 6, 2, 2


def rechub(module):
    return pytest.importorskip(f"torch_rechub.{module}", reason="torch-rechub is not installed")


def fuxictr(module):
    return pytest.importorskip(f"fuxictr.pytorch.layers.{module}", reason="fuxictr is not installed")


def torchrec_crossnet():
    """The one file of torchrec that holds the cross nets: the package itself needs fbgemm to be imported."""
    found = importlib.util.find_spec("torchrec")
    if found is None or found.origin is None:
        pytest.skip("torchrec is not installed")
    file = Path(found.origin).parent / "modules" / "crossnet.py"
    spec = importlib.util.spec_from_file_location("crossnet_of_torchrec", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy(target, value):
    with torch.no_grad():
        target.copy_(value)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def blocks(samples):
    batch = to_batch(*some_rows(samples))
    torch.manual_seed(0)
    return Blocks(
        batch,
        {name: torch.randn(batch.requests, width) for name, width in WIDTHS.request.items()},
        {name: torch.randn(batch.candidates, width) for name, width in WIDTHS.candidate.items()},
        torch.zeros(batch.requests, 1, 0),
    )


def cross(blocks, rank, peer, weight, bias=None):
    """Outputs of our cross layers and of a peer's; `weight(number)` and `bias(number)` are the peer's to fill."""
    config = override(small_config(), [f"model.dcnv2.rank={rank}", "model.dcnv2.layers=3"]).model
    backbone = DCNv2(WIDTHS, config)
    for number in range(3):
        down = backbone.rest[number - 1] if number else backbone.first.linear
        last = backbone.up[number] if rank else down
        if bias is None:  # the package adds its bias after the product with x_0; without one the two agree
            nn.init.zeros_(last.bias)
        else:
            nn.init.normal_(last.bias)
            copy(bias(number), last.bias.reshape(bias(number).shape))
        for target, value in zip(weight(number), (down.weight, last.weight) if rank else (down.weight,), strict=True):
            copy(target, value)
    request, candidate = blocks.flat()
    x = torch.cat([blocks.batch.expand(request), candidate], dim=1)
    close(backbone.cross(request, candidate, blocks), peer(x))


def test_full_cross_layers_are_torch_rechubs(blocks):
    peer = rechub("basic.layers").CrossNetV2(11, 3)
    cross(blocks, 0, peer, lambda number: [peer.w[number].weight])


def test_full_cross_layers_are_fuxictrs(blocks):
    peer = fuxictr("interactions.cross_net").CrossNetV2(11, 3)
    layers = peer.cross_layers
    cross(blocks, 0, peer, lambda number: [layers[number].weight], lambda number: layers[number].bias)


def test_full_cross_layers_are_torchrecs(blocks):
    peer = torchrec_crossnet().CrossNet(11, 3)
    cross(blocks, 0, peer, lambda number: [peer.kernels[number]], lambda number: peer.bias[number])


def test_low_rank_cross_layers_are_torchrecs(blocks):
    peer = torchrec_crossnet().LowRankCrossNet(11, 3, low_rank=4)
    kernels = peer.V_kernels, peer.W_kernels
    cross(blocks, 4, peer, lambda number: [k[number] for k in kernels], lambda number: peer.bias[number])


def test_autoints_interacting_layer_is_torch_rechubs():
    ours, peer = InteractingLayer(8, heads=2), rechub("basic.layers").InteractingLayer(8, num_heads=2)
    q, k, v, residual = ours.project.weight.chunk(4)
    copy(peer.W_Q.weight, q * 4**0.5)  # the package divides by √(d / H), the paper's inner product is not scaled
    copy(peer.W_K.weight, k)
    copy(peer.W_V.weight, v)
    copy(peer.W_Res.weight, residual)
    x = torch.randn(5, 7, 8)
    close(ours(ours.project(x)), peer(x))


def test_dins_activation_unit_is_fuxictrs(blocks):
    width, batch = LocalActivation.SPACE, blocks.batch
    ours = LocalActivation(width, width)
    for linear in (ours.query, ours.key):  # the package has no projections ahead of the unit
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    peer = fuxictr("attentions.target_attention").DIN_Attention(width, [ours.HIDDEN], nn.PReLU(init=0.25))
    linears = [layer for layer in peer.modules() if isinstance(layer, nn.Linear)]
    for target, source in zip(linears, (ours.first, ours.last), strict=True):
        copy(target.weight, source.weight)
        copy(target.bias, source.bias)
    mask = batch.behaviour_mask
    history = torch.randn(*mask.shape, width) * mask.unsqueeze(-1)
    query = torch.randn(batch.candidates, width)
    length = batch.expand(mask.sum(1, keepdim=True)).clamp(min=1)  # ours divides by the history's length
    expected = peer(query, batch.expand(history), batch.expand(mask)) / length
    close(ours(query, Blocks(batch, {}, {}, history)), expected)


def expert_head(name, layers=1):
    """Our head for the first domain alone and its configuration."""
    config = override(
        small_config(),
        ["model.heads.expert_hidden=[5]", "model.heads.tower_hidden=[4]", f"model.heads.ple_layers={layers}"],
    ).model
    torch.manual_seed(1)
    return HEADS[name](HeadSizes(WIDTH, WIDTHS, 3, TASKS, config)).fixed_domain(0)


def copy_nets(ours, theirs):
    """Linear layers in order; their batch norms become identities."""
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eps = 0.0
    linears = [[m for m in side.modules() if isinstance(m, nn.Linear)] for side in (ours, theirs)]
    for source, target in zip(*linears, strict=True):
        copy(target.weight, source.weight)
        copy(target.bias, torch.zeros_like(target.bias) if source.bias is None else source.bias)


def copy_gate(weight, theirs):
    linear = nn.Linear(*reversed(weight.shape), bias=False)
    copy(linear.weight, weight)
    copy_nets(linear, theirs)


def same_probabilities(head, peer, blocks):
    x = torch.randn(blocks.batch.candidates, WIDTH)
    with torch.no_grad():
        found = torch.sigmoid(head(x, blocks, blocks))
        expected = peer.eval()({f"x{column}": x[:, column] for column in range(WIDTH)})
    close(found, expected)


def package_features():
    return [rechub("basic.features").DenseFeature(f"x{column}") for column in range(WIDTH)]


SIZES = {
    "expert_params": {"dims": [5], "activation": nn.SiLU},
    "tower_params_list": [{"dims": [4], "activation": nn.SiLU}] * TASKS,
}


def test_mmoe_of_one_domain_is_torch_rechubs(blocks):
    head = expert_head("mmoe")
    peer = rechub("models.multi_task.mmoe").MMOE(package_features(), ["classification"] * TASKS, EXPERTS, **SIZES)
    own = head.own["0"]
    copy_nets(head.experts, peer.experts)
    copy_nets(own.towers, peer.towers)
    for weight, gate in zip(own.gates.weight.chunk(TASKS), peer.gates, strict=True):
        copy_gate(weight, gate)
    same_probabilities(head, peer, blocks)


@pytest.mark.parametrize("layers", [1, 2])
def test_ple_of_one_domain_is_torch_rechubs(layers, blocks):
    head = expert_head("ple", layers)
    kinds = ["classification"] * TASKS
    peer = rechub("models.multi_task.ple").PLE(package_features(), kinds, layers, EXPERTS, EXPERTS, **SIZES)
    own = head.own["0"]
    for number, level in enumerate(peer.cgc_layers):
        copy_nets(own.layers[number].experts, level.experts_specific)
        copy_nets(head.shared[number], level.experts_shared)
        for gate, theirs in zip(own.layers[number].gates, level.gates_specific, strict=True):
            copy_gate(gate.weight, theirs)
        if number < layers - 1:
            copy_gate(head.gates[number].weight, level.gate_shared)
    copy_nets(own.towers, peer.towers)
    same_probabilities(head, peer, blocks)


def test_shared_bottom_of_one_domain_is_torch_rechubs(blocks):
    head = expert_head("shared_bottom")
    peer = rechub("models.multi_task.shared_bottom").SharedBottom(
        package_features(), ["classification"] * TASKS, SIZES["expert_params"], SIZES["tower_params_list"]
    )
    copy_nets(head.bottom, peer.bottom_mlp)
    copy_nets(head.own["0"].towers, peer.towers)
    same_probabilities(head, peer, blocks)
