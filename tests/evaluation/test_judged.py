"""Measures of judged rows, their slices and cohorts, and the truth of a simulation, by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import metrics
from models.cohorts import exposures_of_items, item_cohorts, slices_of
from models.data import read_rows, row_files
from models.judged import Judged, Measures, Slice, compare, measure
from models.truth import measure_truth
from tests.sample_folder import SPEC, write_samples
from uniscale.errors import DataError
from uniscale.samples import Sampling


def judged(seed=0, users=30, n=900, champion=True, labels=None):
    rng = np.random.default_rng(seed)
    user = np.arange(n) % users
    request = user * 3 + np.arange(n) // users % 3
    signal = rng.normal(size=n)
    clicks = (rng.random(n) < 1 / (1 + np.exp(1 - signal))).astype(int) if labels is None else labels
    scores = {"candidate": {"click": 1 / (1 + np.exp(1 - signal))}}
    if champion:
        scores["champion"] = {"click": 1 / (1 + np.exp(1 - signal - rng.normal(size=n)))}
    clicked = {"click": clicks}
    return Judged(request, user, request, request % 2, clicked, clicked, scores)
    shown = scores > 0.9  # what a policy shows is no random part of the list
    draws = []
    for _ in range(200):
        taken = rng.choice(np.flatnonzero(~shown), 60, replace=False)
        rows = np.append(np.flatnonzero(shown), taken)
        weight = np.append(np.ones(shown.sum()), np.full(60, (~shown).sum() / 60))
        draws.append(metrics.expected_auc(truth[rows], scores[rows], weight))
    assert np.mean(draws) == pytest.approx(whole, abs=0.003)
    assert abs(metrics.expected_auc(truth[shown], scores[shown]) - whole) > 0.03


def test_a_truth_of_other_days_is_refused(samples, tmp_path):
    rows = read_rows(row_files(samples, "test", "unexposed", SPEC), SPEC, "attributed", ("request_id",))
    with pytest.raises(DataError, match="holds none of the days 2026-01-11"):
        measure_truth(rows, {}, pa.table({"index": [1], "item_id": ["i1"]}), tmp_path, Measures())
