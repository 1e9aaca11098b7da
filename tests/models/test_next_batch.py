"""Next-batch evaluation: order of time, predictions before the update, its measures by their definitions."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from models.data import Position, Reader
from models.metrics import gauc
from models.next_batch import DAY_SECONDS
from models.train import Run, train
from tests.models.small import small_config, small_model
from uniscale.errors import ConfigError
from uniscale.samples import LabelSource, Sampling

NEXT = ("train.next_batch=true", "train.epochs=1", "train.batch_samples=128", "model.dropout=0.1")


def trained(config, samples, work, stop=None):
    with torch.random.fork_rng():
        run = Run(config, samples, "dlrm_mlp", "entire", work)
        run.go(stop_before=stop)
    return run


def test_batches_come_in_order_of_time_and_hold_every_row_once(samples):
    reader = Reader(samples, "train", "entire", 64, seed=3, by_time=True)
    rows = list(reader.in_time(keys=("request_id",)))
    ts = np.concatenate([one.ts for one in rows])
    assert (np.diff(ts) >= 0).all()
    identifiers = [name for one in rows for name in one.keys["request_id"].to_pylist()]
    assert len(set(identifiers)) == len(identifiers)
    batches = list(reader.batches(Position(0, 0, 0)))
    assert sum(batch.candidates for _, batch in batches) == sum(one.candidates for one in rows)
    assert sum(batch.candidates for _, batch in batches) == reader.stored_candidates
    expected = np.concatenate([one.request_ids for one in rows])
    assert torch.equal(torch.cat([batch.request_ids for _, batch in batches]), torch.from_numpy(expected))


def test_a_batch_is_predicted_in_evaluation_mode_before_it_is_trained_on(samples, tmp_path):
    config = small_config(*NEXT)
    run = trained(config, samples, tmp_path)
    fresh = small_model("dlrm_mlp", *NEXT, seed=config.seed)
    fresh.fit(run.reader.first_buffer())
    batches = [batch for _, batch in run.reader.batches(Position(0, 0, 0))]
    with torch.no_grad():
        first, later = (fresh.eval()(batches[place]) for place in (0, 5))
    found = torch.cat(run.next_batch.logits).split([batch.candidates for batch in batches])
    torch.testing.assert_close(found[0], first)
    assert not torch.allclose(found[5], later, atol=1e-3)


def test_its_measures_are_those_of_their_definitions(samples, tmp_path):
    run = trained(small_config(*NEXT), samples, tmp_path)
    found = run.report()["next_batch"]["click"]
    y, x, user, query, day, start = [], [], [], [], [], 0
    logits = torch.cat(run.next_batch.logits).numpy()[:, 0]
    for rows in run.reader.in_time(keys=("user_id", "query")):
        for request in range(rows.requests):
            for candidate in range(rows.offsets[request], rows.offsets[request + 1]):
                if rows.domain[request] or rows.sampling[candidate] != Sampling.EXPOSED:
                    continue
                y.append(rows.labels[candidate, 0] * (rows.label_source[candidate, 0] == LabelSource.IN_DOMAIN))
                x.append(logits[start + candidate])
                user.append(rows.keys["user_id"][request].as_py())
                query.append(rows.keys["query"][request].as_py())
                day.append(rows.ts[request] // DAY_SECONDS)
        start += rows.candidates
    y, x, user, day = np.array(y), np.array(x), np.array(user), np.array(day)
    assert found["auc"] == pytest.approx(roc_auc_score(y, x))
    groups = np.unique([f"{u} {q}" for u, q in zip(user, query, strict=True)], return_inverse=True)[1]
    assert found["gauc"] == pytest.approx(gauc(y, x, groups))
    assert found["daily_auc"] == pytest.approx(np.mean([roc_auc_score(y[day == d], x[day == d]) for d in set(day)]))
    of_days = []
    for d in set(day):
        masks = [(day == d) & (user == u) for u in set(user[day == d])]
        masks = [mask for mask in masks if 0 < y[mask].sum() < mask.sum()]
        weights = [mask.sum() for mask in masks]
        of_days.append(np.average([roc_auc_score(y[mask], x[mask]) for mask in masks], weights=weights))
    assert found["uauc"] == pytest.approx(np.mean(of_days))


def test_a_run_stopped_in_the_middle_measures_the_same(samples, tmp_path):
    config = small_config(*NEXT, "train.checkpoint_batches=2")
    whole = train(config, samples, tmp_path / "whole", "dlrm_mlp", "entire", tmp_path / "a")
    trained(config, samples, tmp_path / "b", stop=5)
    resumed = train(config, samples, tmp_path / "resumed", "dlrm_mlp", "entire", tmp_path / "b")
    assert resumed["next_batch"] == whole["next_batch"]


def test_it_passes_over_the_data_once():
    with pytest.raises(ConfigError, match="next_batch is one pass over the data, epochs is 3: set epochs to 1"):
        small_config("train.next_batch=true", "train.epochs=3")
