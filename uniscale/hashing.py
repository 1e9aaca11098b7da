"""The project's one hash: XXH64 with seed 42 of the UTF-8 bytes, as a signed 64-bit integer.

It equals Spark SQL's `xxhash64(string_column)`, so ids hashed by a Spark job and ids hashed by the ranking service
meet in the same embedding row. Features do not share rows, because each embedding table has its own range.
"""

from collections.abc import Iterable

import numpy as np
import xxhash

SEED = 42


def hash64(text: str) -> int:
    """Signed 64-bit hash of one string."""
    unsigned = xxhash.xxh64_intdigest(text.encode(), SEED)
    return unsigned - (1 << 64) if unsigned >= (1 << 63) else unsigned


def hash_many(texts: Iterable[str | None]) -> np.ndarray:
    """Signed 64-bit hashes of strings, shape (n,), int64; a missing string (None) hashes to 0, the padding id."""
    digest = xxhash.xxh64_intdigest
    hashes = [0 if text is None else digest(text.encode(), SEED) for text in texts]
    return np.array(hashes, dtype=np.uint64).view(np.int64)


def unit_interval(text: str) -> float:
    """Map a string to [0, 1) by the top 53 bits of its hash (for assignment and keyed sampling)."""
    return (xxhash.xxh64_intdigest(text.encode(), SEED) >> 11) / float(1 << 53)
