"""The one hash and the assignment built on it."""

from collections import Counter

import numpy as np
import pytest
import xxhash

from uniscale.assignment import assign
from uniscale.errors import ConfigError
from uniscale.hashing import hash64, hash_many, unit_interval


def test_it_is_xxh64_with_seed_42_as_a_signed_integer() -> None:
    for text in ("", "a", "käse 🧀", "x" * 10_000):
        assert hash64(text) == np.uint64(xxhash.xxh64(text.encode(), seed=42).intdigest()).astype(np.int64)


def test_many_equals_one_by_one_and_missing_is_padding() -> None:
    assert hash_many(["a", None, "b"]).tolist() == [hash64("a"), 0, hash64("b")]


def test_the_unit_interval_is_uniform() -> None:
    points = np.array([unit_interval(f"user-{index}") for index in range(20_000)])
    counts = np.histogram(points, bins=20, range=(0, 1))[0]
    # Pearson's chi-square on 19 degrees of freedom stays below 43.8 with probability 0.999.
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8


def test_assignment_follows_the_weights_and_depends_on_the_salt() -> None:
    weights = {"champion": 0.8, "candidate": 0.2}
    first = [assign(f"u{index}", "salt-1", weights) for index in range(20_000)]
    second = [assign(f"u{index}", "salt-2", weights) for index in range(20_000)]
    # Four standard deviations of a binomial share: 4 * sqrt(0.8 * 0.2 / 20000) = 0.0113.
    assert abs(Counter(first)["candidate"] / 20_000 - 0.2) < 0.0113
    both = sum(a == b == "candidate" for a, b in zip(first, second, strict=True)) / 20_000
    assert abs(both - 0.04) < 0.0056  # independent salts: 0.2 * 0.2, four standard deviations


@pytest.mark.parametrize("weights", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}])
def test_bad_weights_are_refused(weights) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        assign("u", "salt", weights)
