"""Context features of a request, derived from the request itself, identically for samples and for serving.

Definition, all on strings (hashed afterwards like any id; a null stays null and hashes to 0):

- `context_hour`: hour of `ts` in UTC, "0" … "23"; Spark `cast(hour(ts) as string)` with the session in UTC;
- `context_weekday`: weekday of `ts` in UTC, Monday "0" … Sunday "6"; Spark `cast(weekday(ts) as string)`;
- `context_scenario`: scenarios of the request, sorted, joined by "|"; Spark `array_join(array_sort(scenario), '|')`;
- `context_<name>`: the column `<name>` of the request as it is, for each of `features.catalogue.context_names`.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCENARIO_SEPARATOR = "|"


def context_columns(ts: pa.Array, scenarios: Sequence[Sequence[str]]) -> dict[str, pa.Array]:
    """The derived context columns of n requests.

    Args:
        ts: timestamps with a time zone or naive UTC, length n.
        scenarios: the scenarios of each request, length n.

    Returns:
        `context_hour`, `context_weekday`, `context_scenario`: string arrays of length n.
    """
    seconds = np.asarray(pc.cast(pc.cast(ts, pa.timestamp("us", tz="UTC")), pa.int64())) // 1_000_000
    hour, weekday = (seconds // 3600) % 24, (seconds // 86_400 + 3) % 7  # 1970-01-01 was a Thursday
    return {
        "context_hour": pc.cast(pa.array(hour), pa.string()),
        "context_weekday": pc.cast(pa.array(weekday), pa.string()),
        "context_scenario": pa.array([scenario_string(each) for each in scenarios], pa.string()),
    }


def scenario_string(scenarios: Sequence[str]) -> str:
    """One request's `context_scenario`."""
    return SCENARIO_SEPARATOR.join(sorted(scenarios))
