"""Attention figures: effective ranks by hand, and averages that are those of the model's own attention."""

from html import escape

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from models.attention_tables import (
    FIGURES,
    attention_of,
    attention_table,
    block_ranks,
    effective_rank,
    markdown,
    page,
    scenario_attention,
    task_attention,
    watched,
)
from models.batches import to_batch
from models.compare import Data
from models.est_layers import FullAttention
from models.mdl import DomainAwareAttention
from models.shared_attention import merge_heads, split_heads
from tests.models.small import small_config, small_model, some_rows
from uniscale.config import override
from uniscale.errors import ConfigError

FULL = ("model.est.attention=full", "model.est.csa=false")


@pytest.fixture(scope="module")
def batch(samples):
    return to_batch(*some_rows(samples))


def test_effective_rank_is_one_for_equal_singular_values_and_least_for_one_alone():
    size = torch.tensor(4)
    assert effective_rank(torch.eye(4), size, size) == pytest.approx(1.0)
    alike = torch.full((4, 4), 0.25)  # every query looks the same way: rank one
    assert effective_rank(alike, size, size) == pytest.approx(1 / 4)
    padded = torch.zeros(5, 6)
    padded[:2, :3] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    # ‖A‖_F² 1.25, ‖A‖_2² 1, max(2, 3)
    assert effective_rank(padded, torch.tensor(2), torch.tensor(3)) == pytest.approx(1.25 / 3)


def test_the_matrix_is_the_one_that_full_attention_uses(batch):
    model = small_model("est", *FULL, "model.est.heads=2").eval()
    seen = watched(model, batch, FullAttention)
    assert len(seen) == len(model.network.layers)
    for layer, (x, behaviours) in seen:
        a = attention_of(layer, x, behaviours)
        _, v = layer.key_value(x).chunk(2, dim=-1)
        rebuilt = layer.out(merge_heads(a @ split_heads(v, layer.heads)))
        exists = torch.cat([behaviours, torch.ones_like(x[:, behaviours.shape[1] :, 0], dtype=torch.bool)], dim=1)
        torch.testing.assert_close(rebuilt[exists], layer(x, behaviours)[exists], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.sum(-1)[:, 0][exists], torch.ones(int(exists.sum())))


def test_block_ranks_lie_between_zero_and_one_and_their_mean_is_over_the_layers(batch):
    found = block_ranks(small_model("est", *FULL).eval(), batch)
    assert list(found) == ["layer 1", "layer 2", "all layers"]
    for block in ("<B, B>", "<B, N>", "<N, B>", "<N, N>"):
        first, second, mean = (row[block] for row in found.values())
        assert 0 < first <= 1 and 0 < second <= 1
        assert mean == pytest.approx((first + second) / 2)


def test_shares_of_attention_are_those_of_domain_aware_attention_and_sum_to_one(batch):
    model = small_model("mdl").eval()
    tasks, scenarios = task_attention(model, batch), scenario_attention(model, batch)
    assert {"layer 1, click", "layer 2, conversion"} <= set(tasks)
    assert "layer 1, global" in scenarios
    for row in (*tasks.values(), *scenarios.values()):
        assert sum(row.values()) == pytest.approx(1.0, abs=1e-5)
    (layer, (t, features)), *_ = [
        one for one in watched(model, batch, DomainAwareAttention) if one[0] is model.network.blocks[0].of_tasks
    ]
    k, _ = layer.key_value(features).chunk(2, dim=-1)
    n = features.shape[1]
    v = torch.eye(n).expand(batch.candidates, layer.heads, n, n)  # values that answer with the weights themselves
    q, k = split_heads(layer.query(t), layer.heads), split_heads(k, layer.heads)
    weights = scaled_dot_product_attention(q, k, v).mean((0, 1))
    assert list(tasks["layer 1, click"].values()) == pytest.approx(weights[0].tolist(), abs=1e-5)


def test_a_scenarios_share_is_of_its_own_instances(batch):
    model = small_model("mdl").eval()
    present = {name for i, name in enumerate(model.spec.scenarios) if batch.scenarios[:, i].any()}
    rows = {label.partition(", ")[2] for label in scenario_attention(model, batch)}
    assert rows == present | {"global"}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_trained_once_and_written(name, samples, tmp_path):
    config = override(small_config(), ["train.epochs=1"])
    found = attention_table(config, {1: Data(samples, None)}, name, tmp_path, requests=10)
    models = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert attention_table(config, {1: Data(samples, None)}, name, tmp_path, requests=10) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == models
    row = found["rows"][0]
    column, value = next((key, value) for key, value in row.items() if key != "label")
    html = page(found, name)
    assert f"{value:.3f}" in markdown(found) and f"{value:.3f}" in html
    assert html.count("<td") == html.count("<td data-label=") > 0 and f'data-label="{escape(column)}"' in html
    with pytest.raises(ConfigError, match="at least one seed"):
        attention_table(config, {}, name, tmp_path)
