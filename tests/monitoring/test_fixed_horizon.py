import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from scipy.stats import binom, norm
from tea_tasting.aggr import Aggregates

from benchmarks.simulated_users import user_table
from monitoring.fixed_horizon import adjust, aggregate, compare
from monitoring.metrics import BY_NAME

METRICS = [BY_NAME[name] for name in ("ctr", "clicks_per_user", "gmv_per_user", "conversion")]


def arms_of(table):
    """Aggregates by numpy: the same numbers as `aggregate`, quick enough for hundreds of experiments."""
    variant = table["variant"].to_numpy(zero_copy_only=False)
    names = [name for name in table.column_names if name != "variant"]
    arms = {}
    for arm in set(variant):
        values = np.stack([table[name].to_numpy()[variant == arm] for name in names])  # (columns, users)
        moments = np.cov(values) if values.shape[1] > 1 else np.zeros((len(names), len(names)))
        moments = np.atleast_2d(moments).tolist()
        pairs = {(a, b): moments[i][j] for i, a in enumerate(names) for j, b in enumerate(names) if a < b}
        spread = {name: moments[i][i] for i, name in enumerate(names)}
        arms[arm] = Aggregates(values.shape[1], dict(zip(names, values.mean(axis=1).tolist())), spread, pairs)
    return arms


def lifts(table, metrics=METRICS, covariates=False, **settings):
    arms = arms_of(table)
    return {
        m.name: compare(m, arms["champion"], arms["candidate"], alpha=0.05, covariates=covariates, **settings)
        for m in metrics
    }


def band(trials, p, tests):
    """Counts that a correct level gives with probability 0.999 over all tests together."""
    tail = 0.001 / tests / 2
    return binom.ppf(tail, trials, p), binom.ppf(1 - tail, trials, p)


@pytest.fixture(scope="module")
def a_a():
    """200 A/A experiments: the p-value of each metric, and of the pooled z-test on CTR that is not offered."""
    rng, found, pooled = np.random.default_rng(11), [], []
    for _ in range(200):
        table = user_table(rng)
        found.append({name: row["p"] for name, row in lifts(table).items()})
        arm = table["variant"].to_numpy(zero_copy_only=False) == "candidate"
        clicks, shown = table["clicks"].to_numpy(), table["impressions"].to_numpy()
        (c1, n1), (c0, n0) = ((clicks[side].sum(), shown[side].sum()) for side in (arm, ~arm))
        share = (c1 + c0) / (n1 + n0)
        z = (c1 / n1 - c0 / n0) / np.sqrt(share * (1 - share) * (1 / n1 + 1 / n0))
        pooled.append(2 * norm.sf(abs(z)))
    return found, np.array(pooled)


def test_an_a_a_rejects_as_often_as_its_level_says(a_a):
    low, high = band(200, 0.05, len(METRICS))
    for metric in METRICS:
        rejected = sum(p[metric.name] < 0.05 for p in a_a[0])
        assert low <= rejected <= high, (metric.name, rejected)


def test_a_pooled_z_test_on_ctr_would_reject_far_too_often(a_a):
    assert (a_a[1] < 0.05).sum() > band(200, 0.05, 1)[1]


def test_a_true_lift_is_recovered_and_covered():
    rng, covered, estimates = np.random.default_rng(12), 0, []
    for _ in range(200):
        row = lifts(user_table(rng, users=600, lift=0.2), [BY_NAME["ctr"]])["ctr"]
        covered += row["interval"][0] <= 0.2 <= row["interval"][1]
        estimates.append(row["lift"])
    assert covered >= band(200, 0.95, 1)[0]
    assert abs(np.mean(estimates) - 0.2) < 4 * np.std(estimates) / np.sqrt(200) + 0.005  # 0.005: a ratio's own bias


def test_cuped_narrows_the_interval_and_keeps_the_lift():
    rng, shrunk, difference = np.random.default_rng(13), [], []
    metric = BY_NAME["clicks_per_user"]
    for _ in range(60):
        table = user_table(rng, lift=0.1, before=True)
        plain, adjusted = (lifts(table, [metric], covariates)[metric.name] for covariates in (False, True))
        assert adjusted["cuped"] and not plain["cuped"]
        shrunk.append(adjusted["log_variance"] / plain["log_variance"])
        difference.append(adjusted["lift"] - plain["lift"])
    assert max(shrunk) < 0.8
    assert abs(np.mean(difference)) < 4 * np.std(difference) / np.sqrt(60)


def test_the_delta_method_of_a_ratio_agrees_with_a_bootstrap_over_users():
    table = user_table(np.random.default_rng(14), users=2000)
    row = lifts(table, [BY_NAME["ctr"]])["ctr"]
    rng = np.random.default_rng(15)
    arm = table["variant"].to_numpy(zero_copy_only=False) == "candidate"
    clicks, shown = table["clicks"].to_numpy(), table["impressions"].to_numpy()

    def resampled(side):
        drawn = rng.choice(np.flatnonzero(side), (2000, side.sum()))
        return np.log(clicks[drawn].sum(axis=1) / shown[drawn].sum(axis=1))

    assert np.sqrt(row["log_variance"]) == pytest.approx(np.std(resampled(arm) - resampled(~arm)), rel=0.08)
    assert row["lift"] == pytest.approx(
        clicks[arm].sum() / shown[arm].sum() / (clicks[~arm].sum() / shown[~arm].sum()) - 1
    )


def test_aggregates_inside_the_data_base_are_those_of_numpy():
    table = user_table(np.random.default_rng(17), before=True)
    inside, outside = aggregate(table, METRICS, covariates=True), arms_of(table)
    for arm in ("champion", "candidate"):
        assert inside[arm].count() == outside[arm].count()
        for metric in METRICS:
            pair = (metric.numerator, metric.denominator)
            assert inside[arm].ratio_var(*pair) == pytest.approx(outside[arm].ratio_var(*pair))


def test_mean_lift_and_variance_by_hand():
    table = pa.table({"variant": ["champion"] * 3 + ["candidate"] * 3, "clicks": [1.0, 2.0, 3.0, 2.0, 3.0, 7.0]})
    row = lifts(table, [BY_NAME["clicks_per_user"]])["clicks_per_user"]
    assert (row["control"], row["treatment"], row["lift"]) == (2.0, 4.0, 1.0)
    # Var log mean = s²/(n m²): 1/(3·4) for (1, 2, 3), 7/(3·16) for (2, 3, 7).
    assert row["log_variance"] == pytest.approx(1 / 12 + 7 / 48)


def test_minimum_detectable_effect_is_what_the_power_formula_gives():
    table = user_table(np.random.default_rng(16), users=5000)
    row = lifts(table, [BY_NAME["clicks_per_user"]], power=0.8, target=0.05)["clicks_per_user"]
    values, arm = table["clicks"].to_numpy(), table["variant"].to_numpy(zero_copy_only=False) == "candidate"
    error = values.std(ddof=1) * np.sqrt(1 / arm.sum() + 1 / (~arm).sum())
    assert row["mde"] == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error / values.mean(), rel=0.02)
    assert row["users_needed"] == pytest.approx(5000 * (row["mde"] / 0.05) ** 2, rel=0.02)


def test_power_is_what_tea_tasting_finds_by_search():
    table = user_table(np.random.default_rng(17), users=800, before=True)
    arms = aggregate(table, [BY_NAME["ctr"]], covariates=True)
    for covariates in (False, True):
        pair = arms["champion"], arms["candidate"]
        row = compare(BY_NAME["ctr"], *pair, alpha=0.1, covariates=covariates, power=0.6, target=0.03)
        before = ("clicks_before", "impressions_before") if covariates else ()
        settings = {"use_t": False, "alpha": 0.1, "power": 0.6, "rel_effect_size": 0.03, "equal_var": False}
        ratio = pair[1].count() / pair[0].count()
        definition = tt.RatioOfMeans("clicks", "impressions", *before, ratio=ratio, **settings)
        total = pair[0] + pair[1]
        searched = definition.solve_power_from_aggregates(total, "rel_effect_size")[0].rel_effect_size
        assert row["mde"] == pytest.approx(searched, rel=1e-9)
        assert row["users_needed"] == definition.solve_power_from_aggregates(total, "n_obs")[0].n_obs


@pytest.mark.parametrize(
    "clicks, reason",
    [
        ([0.0] * 6, "no clicks in either variant"),
        ([0.0, 0.0, 0.0, 1.0, 2.0, 3.0], "no clicks in the control"),
        ([2.0] * 6, "does not vary"),
        ([1.0, 2.0, 3.0, 1.0], "at least 2 users"),
    ],
)
def test_what_cannot_be_compared_is_withheld_with_its_reason(clicks, reason):
    variant = (["champion"] * 3 + ["candidate"] * 3)[: len(clicks)]
    row = lifts(pa.table({"variant": variant, "clicks": clicks}), [BY_NAME["clicks_per_user"]])["clicks_per_user"]
    assert reason in row["withheld"]
    assert row["lift"] is None and row["interval"] is None and row["p"] is None


def test_a_treatment_at_zero_keeps_its_loss():
    table = pa.table({"variant": ["champion"] * 50 + ["candidate"] * 50, "clicks": [0.0, 2.0] * 25 + [0.0] * 50})
    row = lifts(table, [BY_NAME["clicks_per_user"]])["clicks_per_user"]
    assert row["lift"] == -1.0 and row["interval"][1] < 0 and row["p"] < 1e-6 and row["log_ratio"] is None


def test_benjamini_hochberg_by_hand():
    # Sorted 0.01, 0.02, 0.30: times 3/1, 3/2, 3/3, made monotone from the largest down.
    assert adjust({"a": 0.02, "b": 0.30, "c": 0.01}, 0.05) == pytest.approx({"c": 0.03, "a": 0.03, "b": 0.30})
    assert adjust({}, 0.05) == {}
