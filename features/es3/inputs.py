"""Raw feature columns as model inputs: ids hashed with the project's one hash, missing numbers as what they are.

Hashed once per distinct string of a column, whatever its length: behaviours repeat items, days repeat brands.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalogue import missing_value, raw_column
from uniscale.hashing import hash_many
from uniscale.samples import Feature


def model_inputs(table: pa.Table, features: Iterable[Feature]) -> dict[str, pa.Array]:
    """The columns of features, by name, from the raw columns of a table of n rows.

    Returns:
        int64 hashes for ids (0 for null), lists of them for behaviours, float32 for numbers (null where unknown).
    """
    return {feature.name: _input(table[raw_column(feature)], feature) for feature in features}


def like_lists(lists: pa.Array, values: pa.Array) -> pa.Array:
    """`values` (all elements in a row) cut into lists as long as those of `lists`; a null list counts as empty."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), values)


def _input(column: pa.ChunkedArray, feature: Feature) -> pa.Array:
    raw = column.combine_chunks()
    if feature.level == "behaviour":
        return like_lists(raw, _hashed(raw.flatten()))
    if feature.kind == "id":
        return _hashed(raw)
    number, default = raw.cast(pa.float32()), missing_value(feature)
    return number if default is None else number.fill_null(default)


def _hashed(texts: pa.Array) -> pa.Array:
    coded = texts.cast(pa.string()).dictionary_encode()
    hashes = pa.array(hash_many(coded.dictionary.to_pylist()), pa.int64())
    return hashes.take(coded.indices).fill_null(0)
