"""What the peers' benchmark hands to each side: the very same rows, and a whole epoch of ours."""

import numpy as np
import pytest

from benchmarks.loader import write
from benchmarks.peers import flatten, ours, spec_of
from models.data import Position, Reader


@pytest.mark.parametrize("slate", [1, 4])
def test_the_flat_rows_are_those_of_the_samples(tmp_path, slate):
    samples = write(tmp_path / "samples", spec_of(), 40, 0, slate, ids=500)
    largest = flatten(samples, tmp_path / "rows.npz")
    flat = np.load(tmp_path / "rows.npz")
    assert max(largest.values()) < 500 and min(flat[name].min() for name in largest) > 0
    (batch,) = (batch for _, batch in Reader(samples, "train", "search", 100, 0).batches(Position(0, 0, 0)))
    ids = np.concatenate([batch.expand(batch.request_ids).numpy(), batch.candidate_ids.numpy()], axis=1)
    found = np.column_stack([ids, batch.labels.numpy()])
    expected = np.column_stack([flat[f.name] for f in spec_of().features] + [flat["click"]])
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))


@pytest.mark.parametrize("name", ["dcnv2", "autoint"])
def test_an_epoch_of_ours_is_every_sample_with_a_table_a_field(tmp_path, name):
    took = ours(name, write(tmp_path / "samples", spec_of(), 40, 0, 2, ids=50), 50, 16)
    assert took["samples"] == 40
    assert took["embedded"] == (10 * 50 + 1) * 16  # and the padding row
