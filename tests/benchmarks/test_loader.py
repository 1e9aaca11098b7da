"""The loader's benchmark reads what it has written, whole."""

from benchmarks.listwise import spec_of
from benchmarks.loader import SLATE, candidates_of, write
from models.data import Position, Reader


def test_every_candidate_of_the_written_samples_is_read(tmp_path):
    reader = Reader(write(tmp_path / "samples", spec_of(5), 20 * SLATE, 5), "train", "search", 64, seed=0)
    batches = [batch for _, batch in reader.batches(Position(0, 0, 0))]
    assert sum(batch.candidates for batch in batches) == 20 * SLATE
    assert all(batch.behaviour_mask.all() and batch.behaviour_mask.shape[1] == 5 for batch in batches)
    assert {batch.labels.unique().tolist() == [0.0, 1.0] for batch in batches} == {True}
    assert candidates_of(reader.batches(Position(1, 0, 0))) == 20 * SLATE
