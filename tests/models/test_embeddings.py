"""The fused tables and row-wise Adagrad against a dense reference."""

import torch

from models.embeddings import EmbeddingTables, RowwiseAdagrad, rows_of


def test_adagrad_equals_a_dense_reference_with_repeated_rows():
    tables = EmbeddingTables({"a": 5, "b": 7}, dim=3, seed=1)
    optimiser = RowwiseAdagrad(tables.parameters(), lr=0.1)
    weight, total = tables.weight.detach().clone(), torch.zeros(13)
    for step in range(4):
        rows = torch.tensor([[1, 4, 4], [12, 0, step]])
        upstream = torch.randn(2, 3, 3)
        tables(rows).backward(upstream)
        optimiser.step()
        optimiser.zero_grad()
        gradient = torch.zeros(13, 3)
        for row, value in zip(rows.flatten(), upstream.flatten(0, 1), strict=True):
            gradient[row] += value
        gradient[0] = 0.0
        total += gradient.square().mean(dim=1)
        weight -= 0.1 * gradient / (total.sqrt() + 1e-8)[:, None]
        torch.testing.assert_close(tables.weight.detach(), weight)


def test_only_the_rows_of_the_batch_move_and_padding_never_does():
    tables = EmbeddingTables({"a": 50}, dim=3, seed=1)
    before = tables.weight.detach().clone()
    tables(torch.tensor([0, 3, 3, 9])).sum().backward()
    assert tables.weight.grad.is_sparse
    assert tables.weight.grad._nnz() == 4  # one entry a look-up, whatever the table's size
    RowwiseAdagrad(tables.parameters(), lr=0.1).step()
    moved = (tables.weight.detach() != before).any(dim=1).nonzero().flatten()
    assert moved.tolist() == [3, 9]
    assert not tables.weight[0].any()


def test_initial_rows_of_a_table_do_not_depend_on_the_other_tables():
    one = EmbeddingTables({"a": 5, "b": 7}, dim=3, seed=1)
    other = EmbeddingTables({"b": 7, "c": 2, "a": 5}, dim=3, seed=1)
    for name, size in (("a", 5), ("b", 7)):
        mine, theirs = one.offsets[name], other.offsets[name]
        assert torch.equal(one.weight[mine : mine + size], other.weight[theirs : theirs + size])
    assert not torch.equal(one.weight, EmbeddingTables({"a": 5, "b": 7}, dim=3, seed=2).weight)


def test_ids_map_into_their_own_table_and_a_missing_id_to_padding():
    tables = EmbeddingTables({"a": 5, "b": 7}, dim=3, seed=1)
    offsets, sizes = tables.columns(["b", "a", "b"])
    rows = rows_of(torch.tensor([[8, -1, 0], [-(2**63), 2**63 - 1, 7]]), offsets, sizes)
    first_a, first_b = 1, 6  # row 0 is padding
    assert rows[0].tolist() == [first_b + 8 % 7, first_a + -1 % 5, 0]
    assert rows[1].tolist() == [first_b + -(2**63) % 7, first_a + (2**63 - 1) % 5, first_b]
