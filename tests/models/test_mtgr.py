"""MTGR's layer written out pair by pair, and its mask."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.batches import to_batch
from models.mtgr import HSTULayer
from tests.models.small import small_model, some_rows


@pytest.fixture(scope="module")
def data(samples):
    rows, vectors = some_rows(samples)
    return rows.take(np.arange(6)), vectors


def test_a_layer_is_pointwise_gated_attention_over_what_a_token_may_see(data):
    batch = to_batch(*data)
    heads, d, features = 2, 8, 2
    layer = HSTULayer(d, heads, features, dropout=0.0)
    norms = (layer.before.of_features, layer.before.of_behaviours, layer.before.of_candidates)
    after = (layer.after.of_features, layer.after.of_behaviours, layer.after.of_candidates)
    with torch.no_grad():
        for norm in (*norms, *after):
            norm.weight.normal_()
            norm.bias.normal_()
    length = batch.behaviour_mask.shape[1]
    exists = torch.cat([torch.ones(batch.requests, features, dtype=torch.bool), batch.behaviour_mask], dim=1)
    request, candidate = torch.randn(batch.requests, features + length, d), torch.randn(batch.candidates, 2, d)
    blocks = type("Blocks", (), {"batch": batch})
    of_request, of_candidate = layer(request, exists, candidate, blocks)

    def written_out(tokens, groups, queries):
        """Outputs of the query tokens among all tokens of one sequence."""
        normed = torch.stack([norms[group](token) for token, group in zip(tokens, groups, strict=True)])
        u, q, k, v = F.silu(layer.project(normed)).chunk(4, dim=-1)
        found = []
        for i in queries:
            mixed = []
            for at in (slice(0, d // heads), slice(d // heads, d)):
                weights = [F.silu(q[i, at] @ k[j, at]) / len(tokens) for j in range(len(tokens))]
                mixed.append(sum(w * v[j, at] for j, w in enumerate(weights)))
            found.append(tokens[i] + layer.out(after[groups[i]](torch.cat(mixed) * u[i])))
        return torch.stack(found)

    for r in range(batch.requests):
        own = request[r][exists[r]]
        groups = [0] * features + [1] * (len(own) - features)
        torch.testing.assert_close(of_request[r][exists[r]], written_out(own, groups, range(len(own))))
        row = int(batch.offsets[r])
        tokens = torch.cat([own, candidate[row]])
        last = range(len(own), len(own) + 2)
        torch.testing.assert_close(of_candidate[row], written_out(tokens, [*groups, 2, 2], last))


def test_no_candidate_sees_another_and_their_number_does_not_matter(data):
    rows, vectors = data
    model = small_model("mtgr").eval()
    keep = np.random.default_rng(0).random(rows.candidates) < 0.5
    keep[rows.offsets[:-1]] = True
    expected = model(to_batch(rows, vectors))[torch.from_numpy(keep)]
    torch.testing.assert_close(model(to_batch(rows.keep(keep), vectors)), expected, rtol=1e-5, atol=1e-5)


def test_behaviours_are_computed_once_a_request(data):
    rows, vectors = data
    model, batch = small_model("mtgr").eval(), to_batch(rows, vectors)
    calls = []
    for layer in model.network.layers:
        layer.project.register_forward_hook(lambda _, given, out: calls.append(out.shape[:2]))
    model(batch)
    tokens = model.network.features + batch.behaviour_mask.shape[1]
    assert calls == 2 * [(batch.requests, tokens), (batch.candidates, 2)]
