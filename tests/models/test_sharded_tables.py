"""Sharded tables are the whole ones: what they look up, how they learn, what they save and load."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist

from models.distributed import World
from models.embeddings import EmbeddingTables, RowwiseAdagrad
from models.sharded_tables import ShardedTables

SIZES = {"a": 5, "b": 8}  # 13 rows and the padding row, which two processes do not share evenly
ASKED = [[[0, 3, 3], [13, 1, 0]], [[2, 3, 9], [13, 4, 4]]]  # of each rank
ALONE = [[5, 6], [0, 0]]  # the second rank has nothing but empty places


def learn(tables, rows):
    """Two steps of row-wise Adagrad on the sum of squares of what is looked up; the first step's values."""
    optimiser = RowwiseAdagrad([tables.weight], lr=0.1)
    seen = tables(rows).detach().clone()
    for _ in range(2):
        optimiser.zero_grad()
        (tables(rows) * torch.arange(1.0, 5.0)).square().sum().backward()
        optimiser.step()
    return seen, optimiser.state[tables.weight]["sum"]


def shard(rank, size, store, results):
    """One process: everything a test asks of its shard."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    tables = ShardedTables(EmbeddingTables(SIZES, dim=4, seed=3), World(rank, size))
    held, alone = len(tables.weight), tables(torch.tensor(ALONE[rank])).tolist()
    seen, total = learn(tables, torch.tensor(ASKED[rank]))
    learnt, joined = tables.gather(tables.weight.detach()), tables.joined()
    tables.load_state_dict({"weight": torch.arange(56.0).reshape(14, 4)})
    found = {
        "held": held,
        "alone": alone,
        "seen": seen.tolist(),
        "learnt": learnt.tolist(),
        "total": tables.gather(total).tolist(),
        "joined": joined.weight.tolist(),
        "offsets": (joined.offsets, joined.sizes, joined.rows),
        "loaded": tables.gather(tables.weight.detach()).tolist(),
        "rows": tables.rows,
    }
    results.put((rank, found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    context = multiprocessing.get_context("spawn")
    results, store = context.Queue(), tmp_path_factory.mktemp("shards") / "store"
    processes = [context.Process(target=shard, args=(rank, 2, store, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    return [found[rank] for rank in range(2)]


def test_each_process_holds_its_share_and_looks_up_the_whole(shards):
    whole = EmbeddingTables(SIZES, dim=4, seed=3)
    assert [one["held"] for one in shards] == [1 + 7, 1 + 6]
    assert all(one["rows"] == 14 for one in shards)
    for asked, alone, one in zip(ASKED, ALONE, shards, strict=True):
        assert one["alone"] == whole(torch.tensor(alone)).tolist()
        assert one["seen"] == whole(torch.tensor(asked)).tolist()


def test_they_learn_what_the_whole_learns_from_all_that_was_asked(shards):
    whole = EmbeddingTables(SIZES, dim=4, seed=3)
    _, total = learn(whole, torch.tensor(ASKED))
    for one in shards:
        assert torch.allclose(torch.tensor(one["learnt"]), whole.weight.detach(), rtol=1e-6, atol=0)
        assert torch.allclose(torch.tensor(one["total"]), total, rtol=1e-6, atol=0)
        assert one["learnt"] != EmbeddingTables(SIZES, dim=4, seed=3).weight.tolist()
        assert one["learnt"][0] == [0.0] * 4  # padding never moves


def test_what_is_saved_is_whole_and_what_is_loaded_is_dealt_out(shards):
    whole = EmbeddingTables(SIZES, dim=4, seed=3)
    for one in shards:
        assert one["joined"] == one["learnt"]
        assert one["offsets"] == (whole.offsets, whole.sizes, 14)
        assert one["loaded"] == torch.arange(56.0).reshape(14, 4).tolist()
