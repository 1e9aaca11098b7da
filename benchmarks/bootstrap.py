"""The gate's paired bootstrap by user: seconds for a million judged rows and a thousand resamples.

`python -m benchmarks.bootstrap --rows 1000000 --resamples 1000 --users 50000`

Two models, one task, requests of ten items. `grouped` are the measures that are ratios of sums over users (GAUC, QAUC,
UAUC, HR@5, NDCG@10, log-loss); `all` has plain AUC as well, whose pairs cross users; each cohort adds an AUC of its
own rows. What is timed is what `uniscale gate` calls.
"""

import argparse
import time

import numpy as np

from models.judged import Judged, Measures, Slice, compare, measure

ITEMS = 10


def judged(rows: int, users: int, seed: int) -> Judged:
    """Rows of two models whose scores know the labels' chance with different noise; the champion's are the noisier."""
    rng = np.random.default_rng(seed)
    requests = rows // ITEMS
    user_of_request = np.sort(rng.integers(0, users, requests))
    user_of_request = np.unique(user_of_request, return_inverse=True)[1]
    request = np.repeat(np.arange(requests), ITEMS)
    user = user_of_request[request]
    appeal = rng.normal(size=len(request))
    labels = (rng.random(len(request)) < 1 / (1 + np.exp(2.0 - appeal))).astype(np.int8)
    scores = {
        model: {"click": 1 / (1 + np.exp(-appeal - noise * rng.normal(size=len(request))))}
        for model, noise in (("candidate", 0.8), ("champion", 1.0))
    }
    group = request // 2  # some users ask the same query twice in a row
    group = np.unique(user * (int(group.max()) + 1) + group, return_inverse=True)[1]
    return Judged(request, user, group, request % 4, {"click": labels}, {"click": labels}, scores)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--cohorts", type=int, default=4)
    asked = parser.parse_args()
    rows = judged(asked.rows, asked.users, 7)
    cohort = rows.user % asked.cohorts
    slices = [Slice("user_cohort", str(number), cohort == number) for number in range(asked.cohorts)]
    print(f"{len(rows.user):,} rows, {int(rows.user.max()) + 1:,} users, {asked.resamples} resamples, one thread")
    print("| measures | seconds wall | seconds CPU |\n| --- | ---: | ---: |")
    for name, chosen in (("without cohorts", []), (f"with {asked.cohorts} cohorts", slices)):
        found = Measures()
        wall, cpu = time.perf_counter(), time.process_time()
        measure(rows, found)
        compare(rows, chosen, asked.resamples, 0.95, 7, found)
        print(f"| {name} | {time.perf_counter() - wall:.1f} | {time.process_time() - cpu:.1f} |", flush=True)


if __name__ == "__main__":
    main()
