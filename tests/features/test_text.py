"""Text encoder: unit vectors, frozen by seed and texts, near for near spellings, zero where there is no text."""

import numpy as np
import pytest

from features.text import TextEncoder
from uniscale.errors import DataError

TEXTS = [
    f"{colour} {size} {kind}"
    for colour in ("red", "blue", "green", "black")
    for size in ("small", "large", "tiny")
    for kind in ("running shoe", "desk lamp", "garden chair", "coffee cup", "wool coat")
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.fit(TEXTS, dim=8, seed=3)


def test_vectors_are_unit_and_float32(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 8) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_missing_or_empty_text_is_zero(encoder):
    np.testing.assert_array_equal(encoder.encode([None, "", "   "]), np.zeros((3, 8)))
    assert encoder.encode([]).shape == (0, 8)


def test_batching_does_not_matter(encoder):
    whole = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.concatenate([encoder.encode([text]) for text in TEXTS]), whole, atol=1e-6)


def test_equal_texts_and_seed_give_equal_encoders(encoder):
    again = TextEncoder.fit(list(reversed(TEXTS)) + TEXTS[:7], dim=8, seed=3)
    np.testing.assert_array_equal(again.components, encoder.components)
    np.testing.assert_array_equal(again.idf, encoder.idf)


def test_a_misspelt_query_is_nearest_to_its_kind(encoder):
    vectors, query = encoder.encode(TEXTS), encoder.encode(["runing shoes"])[0]
    nearest = np.argsort(-(vectors @ query))[:12]
    assert {TEXTS[index].split(maxsplit=2)[2] for index in nearest} == {"running shoe"}


def test_saving_and_loading_changes_no_bit(encoder, tmp_path):
    encoder.save(tmp_path / "encoder")
    loaded = TextEncoder.load(tmp_path / "encoder")
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert (loaded.dim, loaded.seed) == (8, 3)


def test_fewer_texts_than_dimensions_leave_zeros(tmp_path):
    narrow = TextEncoder.fit(["red shoe", "blue lamp"], dim=8, seed=0)
    vectors = narrow.encode(["red shoe", "blue lamp"])
    assert np.isfinite(vectors).all() and (narrow.components[:, 2:] == 0).all()
    np.testing.assert_allclose(TextEncoder.fit(["cup"], 4, 0).encode(["cup"]), [[1, 0, 0, 0]], atol=1e-6)


def test_idf_is_that_of_the_formula():
    encoder = TextEncoder.fit(["ab", "ab ab", "xy"], dim=2, seed=0)
    expected = {round(float(np.log(4 / 3) + 1), 5), round(float(np.log(4 / 2) + 1), 5), round(float(np.log(4) + 1), 5)}
    assert {round(float(value), 5) for value in encoder.idf} == expected


def test_no_text_is_an_error_that_says_what_to_do():
    with pytest.raises(DataError, match="has_text"):
        TextEncoder.fit(["", "  "], dim=4, seed=0)
