"""GAUC and QAUC by (user, query) on many rows, from the group columns to the numbers, in CPU seconds of one thread.

`python -m benchmarks.metrics [--rows 10000000] [--per-group 10]`
"""

import argparse
import time

import numpy as np

from models.cells import group_codes
from models.metrics import GroupedAUC, grouped_auc


def data(rows: int, per_group: int) -> tuple[np.ndarray, ...]:
    """Random labels, scores, users and queries, (rows,) each, with about so many rows a (user, query)."""
    rng = np.random.default_rng(0)
    groups = max(rows // per_group, 1)
    of_row = rng.integers(0, groups, rows)
    scores = rng.normal(size=rows).astype(np.float32)
    labels = (rng.random(rows) < 1 / (1 + np.exp(2 - scores))).astype(np.int8)
    return labels, scores, of_row // 4, of_row % 4


def measures(found: GroupedAUC) -> tuple[float, float]:
    """GAUC and QAUC."""
    return found.gauc, found.qauc


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--per-group", type=int, default=10)
    options = parser.parse_args()
    labels, scores, users, queries = data(options.rows, options.per_group)
    start = time.process_time()
    codes = group_codes(users, queries)
    grouped = time.process_time()
    gauc, qauc = measures(grouped_auc(labels, scores, codes))
    done = time.process_time()
    print("| rows | groups | codes of (user, query) s | GAUC and QAUC s | GAUC | QAUC |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    times = f"{grouped - start:.2f} | {done - grouped:.2f}"
    print(f"| {options.rows:,} | {int(codes.max()) + 1:,} | {times} | {gauc:.4f} | {qauc:.4f} |")


if __name__ == "__main__":
    main()
