"""The raw columns behind the hashed ones of `tests.sample_folder`, as the feature store would give them."""

import numpy as np
import pyarrow as pa

from uniscale.hashing import hash64

DEVICES = {hash64(f"d{device}"): f"d{device}" for device in range(2)}


def user_raw(row: dict) -> dict:
    """What Feast gives for a row's user and query."""
    behaviours = row["behaviour_index"]
    return {
        "user_id": row["user_id"],
        "query": row["query"],
        "user_gender": f"g{int(row['user_id'][1:]) % 2}",
        "user_clicks_7d": row["user_clicks_7d"],
        "query_clicks_7d": row["query_clicks_7d"],
        "behaviour_item_id": [f"i{item}" for item in behaviours],
        "behaviour_category_1": [f"c{item % 7}" for item in behaviours],
        "behaviour_brand": [f"b{item % 11}" for item in behaviours],
        "behaviour_type": [f"t{item % 3}" for item in behaviours],
        "behaviour_ts": row["behaviour_ts"],
    }


def items_raw(items: int, row: dict | None = None) -> pa.Table:
    """Raw columns of all items; the clicks of a row's candidates are that row's."""
    index = np.arange(1, items + 1)
    clicks = np.zeros(items, np.float32)
    if row is not None:
        clicks[np.array(row["item"]) - 1] = row["item_clicks_7d"]
    return pa.table(
        {
            "item_id": [f"i{item}" for item in index],
            "item_category_1": [f"c{item % 7}" for item in index],
            "item_brand": [f"b{item % 11}" for item in index],
            "item_price": pa.array((5 + index % 50).astype(np.float32)),
            "item_clicks_7d": pa.array(clicks),
        }
    )
