"""The benchmark of the metrics measures what it says: the mean AUC of its groups, counted pair by pair."""

import numpy as np

from benchmarks.metrics import data, measures
from models.cells import group_codes
from models.metrics import grouped_auc


def test_the_measures_are_the_means_over_pairs_of_each_user_and_query():
    labels, scores, users, queries = data(200, 10)
    weights, values = [], []
    for pair in set(zip(users.tolist(), queries.tolist(), strict=True)):
        own = (users == pair[0]) & (queries == pair[1])
        won = scores[own & (labels == 1)][:, None] > scores[own & (labels == 0)]
        if won.size:
            weights.append(own.sum())
            values.append(won.mean())
    found = measures(grouped_auc(labels, scores, group_codes(users, queries)))
    np.testing.assert_allclose(found, (np.average(values, weights=weights), np.mean(values)))
