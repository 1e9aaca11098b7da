"""What the experiment statistics promise, measured: A/A rates, coverage, power, peeking, sample ratio, cost.

`python -m benchmarks.experiments --experiments 1000` prints one line of JSON a measurement. The rule for an A/A: a
fixed-horizon method is sound when every false-positive rate lies in the binomial band of its level, the band widened
for the number of metrics and methods looked at (Bonferroni at 1 %); of an always-valid method only the upper end
counts, as it stays below its level by construction.
"""

import argparse
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from scipy.stats import binom

from benchmarks.simulated_users import WANTED, clicks_at, drawn_orders, requests_of, user_table
from monitoring.counterfactual import estimate
from monitoring.definition import definition_from
from monitoring.experiment import analyse_table
from monitoring.fixed_horizon import aggregate, compare, sample_ratio
from monitoring.interleaving import preference
from monitoring.metrics import BY_NAME
from monitoring.quantiles import clustered_quantile, compare_quantiles
from monitoring.sequential import BURN_IN, always_valid

METRICS = tuple(BY_NAME[n] for n in ("ctr", "clicks_per_user", "orders_per_user", "gmv_per_user", "conversion"))
LEVEL, FAMILY_LEVEL = 0.05, 0.01


def band(trials: int, level: float, tests: int) -> tuple[float, float]:
    """Least and greatest rate that a sound method shows in all of `tests` looks, but once in 1 / FAMILY_LEVEL."""
    tail = FAMILY_LEVEL / tests / 2
    return float(binom.ppf(tail, trials, level)) / trials, float(binom.ppf(1 - tail, trials, level)) / trials


def fixed_horizon(experiments: int, users: int, seed: int, lift: float = 0.0) -> dict[str, dict[str, float]]:
    """Rates of rejection and of coverage of the true lift by metric, plain and with CUPED.

    The lift is that of the click probability; purchases follow clicks, so the other means have it too. Coverage of
    conversion, whose lift is not that of the clicks, is given for an A/A only.
    """
    rejected: dict[str, int] = {}
    covered: dict[str, int] = {}
    rng = np.random.default_rng(seed)
    for _ in range(experiments):
        table = user_table(rng, users, lift, before=True)
        for method, covariates in (("plain", False), ("cuped", True)):
            arms = aggregate(table, METRICS, covariates)
            for metric in METRICS:
                row = compare(metric, arms["champion"], arms["candidate"], alpha=LEVEL, covariates=covariates)
                name = f"{metric.name} {method}"
                rejected[name] = rejected.get(name, 0) + (row["p"] is not None and row["p"] < LEVEL)
                inside = row["interval"] is not None and row["interval"][0] <= lift <= row["interval"][1]
                covered[name] = covered.get(name, 0) + inside
    counted = {name for name in covered if lift == 0.0 or not name.startswith("conversion")}
    return {
        "rejected": {name: count / experiments for name, count in rejected.items()},
        "covered": {name: covered[name] / experiments for name in rejected if name in counted},
    }


def tail_latency(experiments: int, users: int, seed: int) -> float:
    """False-positive rate of the clustered p90 (the p99 of small samples has no upper bound)."""
    rng, rejected = np.random.default_rng(seed), 0
    for _ in range(experiments):
        control, treatment = (clustered_quantile(*requests_of(rng, users), 0.9, LEVEL) for _ in range(2))
        found = compare_quantiles(control, treatment, LEVEL)
        rejected += found is not None and found.p < LEVEL
    return rejected / experiments


def peeking(experiments: int, users: int, days: int, seed: int, lift: float = 0.0) -> dict[str, float]:
    """Share of experiments that a daily look rejects, by the always-valid and by the fixed-horizon interval.

    Users return, and their clicks are overdispersed (gamma rates); looks begin after the burn-in.
    """
    rng, found = np.random.default_rng(seed), {"always valid": 0, "fixed horizon": 0, "fixed horizon, last day": 0}
    for _ in range(experiments):
        rate = rng.gamma(1.0, 0.4, users)
        arm = rng.permutation(users) < users // 2
        total = rng.poisson((rate * np.where(arm, 1 + lift, 1.0))[:, None], (users, days)).cumsum(axis=1)
        valid = fixed = last = False
        for day in range(days):
            a, b = total[arm, day], total[~arm, day]
            if min(a.sum(), b.sum()) < BURN_IN:
                continue
            theta = math.log(a.mean() / b.mean())
            variance = sum(x.var(ddof=1) / x.mean() ** 2 / len(x) for x in (a, b))
            valid |= always_valid(theta, variance, LEVEL, 0.1).p < LEVEL
            last = abs(theta) > 1.959964 * math.sqrt(variance)
            fixed |= last
        for name, hit in zip(found, (valid, fixed, last), strict=True):
            found[name] += int(hit)
    return {name: count / experiments for name, count in found.items()}


def sample_ratio_power(share: float, users: int, trials: int, seed: int) -> dict[str, float]:
    """How often a true share of the treatment is noticed where half was planned, at both thresholds."""
    treated = np.random.default_rng(seed).binomial(users, share, trials)
    p = np.array([sample_ratio(int(users - count), int(count), 1.0) for count in treated])
    return {f"p < {bound:g}": float((p < bound).mean()) for bound in (0.01, 0.001)}


def off_policy(trials: int, requests: int, seed: int) -> dict[str, dict[str, float]]:
    """Coverage of the truth by 95 % intervals, and their mean width, of IPS, SNIPS and DR on drawn orders."""
    rng, truth = np.random.default_rng(seed), clicks_at(WANTED).sum()
    found: dict[str, dict[str, float]] = {name: {"covered": 0.0, "width": 0.0} for name in ("ips", "snips", "dr")}
    for _ in range(trials):
        result = estimate(drawn_orders(rng, requests, max(requests // 7, 2)))
        for name, measured in found.items():
            low, high = result[name]["interval"]
            measured["covered"] += (low <= truth <= high) / trials
            measured["width"] += (high - low) / trials
    return found


def interleaved(trials: int, users: int, seed: int, share: float = 0.5) -> float:
    """How often a preference is found where the treatment truly gets this share of the credits of unlike users."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(trials):
        clicks = rng.poisson(rng.gamma(1.0, 3.0, users))
        treatment = rng.binomial(clicks, share).astype(float)
        p = preference(clicks - treatment, treatment, LEVEL)["p"]
        found += p is not None and p < LEVEL
    return found / trials


def analysis_seconds(users: int, days: int, folder: Path) -> dict[str, float]:
    """Seconds to analyse a table with one row a user and day, ten metrics, a look at every day's end, the page."""
    table, names = folder / "users.parquet", [f"m{n}" for n in range(10)]
    columns = ", ".join(f"floor(-ln(1 - random()) * {n + 1}) AS {name}" for n, name in enumerate(names))
    with duckdb.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(
            f"COPY (SELECT 'u' || u AS user_id, CASE WHEN hash(u) % 2 = 0 THEN 'a' ELSE 'b' END AS variant, "
            f"DATE '2026-03-02' + CAST(d AS INTEGER) AS day, {columns} FROM range({days}) AS t(d), "
            f"range({users}) AS s(u)) TO '{table}' (COMPRESSION zstd)"
        )
    metrics: list[dict[str, Any]] = [
        {"name": name, "label": name, "numerator": name, "better": "higher", "unit": "count", "meaning": name}
        | {"covariate": False, "denominator": "m0" if number > 7 else None}
        for number, name in enumerate(names)
    ]
    definition = definition_from(
        {"name": "size", "hypothesis": "None.", "owner": "bench", "salt": None, "weights": {"a": 0.5, "b": 0.5}}
        | {
            "source": {"kind": "units", "unit": "user_id", "variant": "variant", "day": "day"},
            "control": "a",
            "mode": "split",
        }
        | {"metrics": metrics, "primary": "m0", "guardrails": {"m8": 0.05}, "mde_target": 0.05, "ramp": []}
        | {"stop": {"days": days, "early": "harm"}, "alpha": 0.05, "power": 0.8, "srm_warn": 0.01, "srm_block": 0.001}
    )
    started, busy = time.perf_counter(), time.process_time()
    result = analyse_table(definition, table, folder / "out")
    seconds, processor = time.perf_counter() - started, time.process_time() - busy
    assert len(result["by_day"]) == 2 * days and all(row["lift"] is not None for row in result["metrics"])
    return {
        "seconds": seconds,
        "processor seconds": processor,
        "rows": float(users * days),
        "peak GB": peak_gigabytes(),
    }


def peak_gigabytes() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measurements(experiments: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and measurement, cheap ones first."""
    n = experiments
    yield "srm power, 50.5/49.5 of 1e5 users", lambda: sample_ratio_power(0.505, 100_000, 20 * n, 1)
    yield "srm under a fair split", lambda: sample_ratio_power(0.5, 100_000, 20 * n, 2)
    yield "peeking, A/A, 14 looks", lambda: peeking(n, 2000, 14, 3)
    for lift in (0.05, 0.1, 0.2):
        yield f"peeking, lift {lift:g}, 14 looks", lambda lift=lift: peeking(n, 2000, 14, 4, lift)  # type: ignore[misc]
    yield "clustered p90, A/A", lambda: tail_latency(n, 150, 5)
    yield "off-policy coverage, 2,000 drawn orders", lambda: off_policy(n, 2000, 8)
    yield "interleaving, A/A, 200 users", lambda: interleaved(n, 200, 9)
    yield "interleaving, 55 % of the credits, 200 users", lambda: interleaved(n, 200, 10, 0.55)
    yield "band of 11 methods", lambda: band(n, LEVEL, 2 * len(METRICS) + 1)
    yield "fixed horizon, A/A", lambda: fixed_horizon(n, 1000, 6)
    yield "fixed horizon, lift 0.1", lambda: fixed_horizon(n, 1000, 7, lift=0.1)


def main() -> None:
    """Print every measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument(
        "--users", type=int, nargs="*", default=[100_000, 1_000_000], help="sizes whose cost is measured"
    )
    chosen = parser.parse_args()
    for name, measure in measurements(chosen.experiments) if chosen.experiments else ():
        print(json.dumps({"measured": name, "result": measure()}), flush=True)
    for users in chosen.users:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"users": users} | analysis_seconds(users, 14, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
