"""The serving log: one row an answered request, written by the service, read by monitoring and by retraining.

Files are `day=YYYY-MM-DD/*.parquet` below one folder, the day being that of `ts`; scores of shadow variants, which no
user saw, lie in the same way below `SHADOWS` in it, model inputs of a sample of the requests below `INPUTS`.
"""

import pyarrow as pa

from uniscale.logs import FLOATS, STRINGS, TIMESTAMP
from uniscale.samples import SampleSpec, row_schema

INTERLEAVED = "interleaved"  # the variant of an answer that two variants drafted together

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("ts", TIMESTAMP),  # when the user asked (a simulated clock where the service accepts one)
        ("served_at", TIMESTAMP),  # wall clock of the answer
        ("user_id", pa.string()),
        ("query", pa.string()),
        ("scenario", STRINGS),
        ("variant", pa.string()),
        ("version", pa.string()),
        ("item_ids", STRINGS),  # in the order answered
        ("scores", FLOATS),
        ("teams", STRINGS),  # of an interleaved answer: the variant that drafted each item; null otherwise
        ("propensities", FLOATS),  # of each item at its position given those above it; null unless exploration is on
        ("candidates", pa.int32()),
        ("fallback", pa.string()),  # why the answer is not the model's, null when it is
        ("latency_ms", pa.float32()),
        ("features_hash", pa.int64()),
    ]
)

SHADOWS = "_shadows"
SHADOW_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),  # of the answer in the serving log
        ("ts", TIMESTAMP),
        ("variant", pa.string()),  # of the shadow
        ("version", pa.string()),
        ("item_ids", STRINGS),  # all candidates, in the order the shadow would have answered
        ("scores", FLOATS),
        ("latency_ms", pa.float32()),  # of its scoring alone
        ("features_hash", pa.int64()),
    ]
)

INPUTS = "_inputs"


def inputs_schema(spec: SampleSpec) -> pa.Schema:
    """Schema of a request's inputs: its features under the names and types that they have in the samples' rows.

    Candidate features are lists along `item_ids`, behaviour features lists along the user's history, oldest first.
    """
    given = row_schema(spec)
    names = ["request_id", "ts", "behaviour_ts", *(feature.name for feature in spec.features)]
    return pa.schema([*(given.field(name) for name in names), ("item_ids", STRINGS)])
