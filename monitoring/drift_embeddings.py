"""Drift of vectors: can a classifier tell the vectors of two windows apart better than by chance?

Evidently's model-based method is called directly (its metric always runs t-SNE): half of the vectors train a linear
classifier of the window, the other half gives its AUC, 0.5 where the windows are alike. With n and m vectors in that
half the AUC of a useless classifier has the variance (n + m + 1) / (12 n m) (Mann–Whitney).
"""

import math
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from uniscale.samples import SampleSpec, Sampling

VECTORS, SIGMAS, TESTED_SHARE = 4000, 4.0, 0.5


def embedding_drift(reference: np.ndarray, current: np.ndarray, warn: float) -> dict[str, Any]:
    """AUC of telling two sets of vectors (n, d) and (m, d) apart, its noise, and whether that is drift.

    Args:
        warn: AUC beyond which it counts, once it is beyond chance as well.
    """
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import model

    tables = [
        pd.DataFrame(values, columns=[f"v{n}" for n in range(values.shape[1])]) for values in (current, reference)
    ]
    auc = float(model(threshold=warn, bootstrap=False)(*tables)[0])
    n, m = (TESTED_SHARE * len(values) for values in (reference, current))
    noise = math.sqrt((n + m + 1) / (12 * n * m))
    drifted = auc > warn and auc - 0.5 > SIGMAS * noise
    why = f"a classifier tells the windows apart with AUC {auc:.2f}, threshold {warn:g}" if drifted else None
    return {"auc": auc, "noise": noise, "drifted": drifted, "why": why, "rows": [len(reference), len(current)]}


def sampled_vectors(samples: Path, spec: SampleSpec, window: tuple[str, str], seed: int) -> dict[str, np.ndarray]:
    """At most VECTORS vectors of a window in the target domain: `query_text` and the exposed items' `item_content`."""
    files = [str(f) for f in sorted(Path(samples).glob(f"rows/day=*/domain={spec.domains[0]}/*.parquet"))]
    files = [f for f in files if window[0] <= Path(f).parent.parent.name.removeprefix("day=") <= window[1]]
    if not files:
        return {}
    found = {}
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")  # a repeatable reservoir needs one order of the rows
        pick = f"USING SAMPLE reservoir({VECTORS} ROWS) REPEATABLE ({seed})"
        source = "read_parquet($files, hive_partitioning = false)"
        if spec.text_dim:
            sql = f"SELECT query_text AS v FROM (SELECT query_text FROM {source} WHERE len(query_text) > 0) {pick}"
            found["query_text"] = _matrix(connection.execute(sql, {"files": files}).fetchall())
        if spec.content_dim:
            shown = f"SELECT unnest(item) AS item, unnest(sampling) AS sampling FROM {source}"
            sql = (
                f"SELECT content FROM (SELECT item FROM ({shown}) WHERE sampling = {int(Sampling.EXPOSED)} {pick}) "
                'JOIN read_parquet($items) i ON item = i."index"'
            )
            items = str(Path(samples) / "items.parquet")
            found["item_content"] = _matrix(connection.execute(sql, {"files": files, "items": items}).fetchall())
    return {name: values for name, values in found.items() if len(values) > 1}


def _matrix(rows: list[tuple[Any, ...]]) -> np.ndarray:
    return np.array([row[0] for row in rows if row[0] is not None], dtype=np.float64)
