"""Fixed-horizon comparison of two arms by tea-tasting: delta method, CUPED, power, from per-user aggregates alone.

With m_t and m_c the (ratio of) user means and V their delta-method variances, the lift is m_t / m_c − 1, its interval
comes from log(m_t / m_c) ± t √(V_t / m_t² + V_c / m_c²) and its p-value from m_t − m_c (Deng, Knoblich and Lu 2018).
With the covariate x of an earlier period, m is replaced by m − θ (x − x̄), θ = cov(m, x) / var(x) (CUPED; Deng, Xu,
Kohavi and Walker 2013). What cannot be computed is withheld with the reason, and never becomes a NaN.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import tea_tasting as tt
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm
from tea_tasting.aggr import Aggregates

from monitoring.metrics import Metric

NO_VARIANCE = 1e-14  # variances below it are rounding
COMPARED = ("lift", "interval", "p", "mde", "users_needed", "log_ratio", "log_variance")


def aggregate(users: Any, metrics: Iterable[Metric], covariates: bool) -> dict[str, Aggregates]:
    """Counts, means, variances and covariances a variant, in one pass.

    Args:
        users: one row a user with `variant` and the columns of the metrics; an ibis or Arrow table.
        metrics: whose columns to aggregate.
        covariates: the table also has the `…_before` columns.
    """
    columns = tt.metrics.AggrCols()
    for metric in metrics:
        columns |= _definition(metric, covariates).aggr_cols
    found = tt.metrics.aggregate_by_variants(users, aggr_cols=columns, variant="variant")
    return {str(variant): aggregates for variant, aggregates in found.items()}


def compare(
    metric: Metric,
    control: Aggregates,
    treatment: Aggregates,
    *,
    alpha: float,
    covariates: bool,
    power: float | None = None,
    target: float | None = None,
) -> dict[str, Any]:
    """Lift of one metric: means, `lift`, `interval`, `p`, `mde`, `users_needed`, `log_ratio`, `log_variance`.

    Args:
        alpha: two-sided level; intervals are 1 − alpha.
        covariates: adjust by the same quantity before the experiment.
        power: asked of the minimum detectable effect (`mde`, relative) at the users there are; None leaves it out.
        target: relative lift for which `users_needed` (both arms together) is solved; goes with `power`.

    Returns:
        A mapping in which every number is finite or None; `withheld` is None or says why the lift is not given.
    """
    result: dict[str, Any] = {"control": None, "treatment": None, **dict.fromkeys(COMPARED), "cuped": False}
    counts = (control.count(), treatment.count())
    if min(counts) < 2:
        return result | {"withheld": f"a comparison needs at least 2 users a variant, there are {min(counts)}"}
    covariates = covariates and bool(metric.covariate) and _informative(metric, control, treatment)
    plain = _values(metric, control, treatment)
    result |= {"control": _finite(plain[0], metric.scale), "treatment": _finite(plain[1], metric.scale)}
    if result["control"] is None or result["treatment"] is None:
        return result | {"withheld": f"no {metric.denominator} in a variant, so the ratio has no denominator"}
    if plain[0] == 0:
        nothing = metric.absent or f"no {metric.numerator} in either variant"
        reason = nothing if plain[1] == 0 else f"no {metric.numerator} in the control, so a relative lift is undefined"
        return result | {"withheld": reason}
    definition = _definition(metric, covariates, confidence_level=1 - alpha, use_t=True)
    with np.errstate(all="ignore"):
        if plain[1] == 0:
            return result | _against_zero(definition, control)
        withheld = {"withheld": f"{metric.label} does not vary between users, so no interval can be given"}
        if _log_variance(metric, False, control, treatment, plain) < NO_VARIANCE:
            return result | withheld
        found = definition.analyze_aggregates(control, treatment)
        means = (found.control, found.treatment)
        numbers = [found.rel_effect_size_ci_lower, found.rel_effect_size_ci_upper, found.pvalue]
        if min(means) <= 0 or not all(math.isfinite(number) for number in numbers):
            return result | withheld
        log_variance = _log_variance(metric, covariates, control, treatment, means)
    powered = {}
    if power is not None and target is not None:
        powered = _power(metric, covariates, control, treatment, alpha, power, target)
    return result | {
        "control": found.control * metric.scale,
        "treatment": found.treatment * metric.scale,
        "lift": found.rel_effect_size,
        "interval": numbers[:2],
        "p": found.pvalue,
        "log_ratio": math.log1p(found.rel_effect_size),
        "log_variance": log_variance,
        "cuped": covariates,
        "withheld": None,
        **powered,
    }


def adjust(p_values: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Benjamini–Hochberg adjusted p-values (false discovery rate) of a family of metrics."""
    if not p_values:
        return {}
    family = tt.experiment.ExperimentResult({name: {"pvalue": p} for name, p in p_values.items()})
    adjusted = next(iter(tt.adjust_fdr(family, alpha=alpha).values()))
    return {name: float(result["pvalue_adj"]) for name, result in adjusted.items()}


def sample_ratio(control: int, treatment: int, expected: float) -> float:
    """P-value that the user counts follow the expected treatment/control ratio (exact below 1,000 users)."""
    counts = {"control": Aggregates(count_=control), "treatment": Aggregates(count_=treatment)}
    check = tt.SampleRatio(expected, correction=False)
    return check.analyze(counts, control="control", treatment="treatment").pvalue


def _definition(metric: Metric, covariates: bool, **settings: Any) -> tt.RatioOfMeans:
    before = _before(metric, covariates and bool(metric.covariate))
    return tt.RatioOfMeans(metric.numerator, metric.denominator, *before, equal_var=False, **settings)


def _power(
    metric: Metric,
    covariates: bool,
    control: Aggregates,
    treatment: Aggregates,
    alpha: float,
    power: float,
    target: float,
) -> dict[str, Any]:
    """Least lift these users can show, and users needed for the target, by the normal distribution.

    Tea-tasting solves the same equation by search, which took more than half of an analysis.
    """
    total, ratio = control + treatment, treatment.count() / control.count()
    mean, variance = _values(metric, total)[0], _adjusted_variance(metric, covariates, total, total)
    error = math.sqrt(variance / total.count() * (1 + ratio) ** 2 / ratio) / mean  # of a lift
    mde = _detectable_errors(alpha, power) * error
    return {"mde": mde, "users_needed": math.ceil(total.count() * (mde / target) ** 2)}


@lru_cache
def _detectable_errors(alpha: float, power: float) -> float:
    """The true effect in standard errors that a two-sided test finds with this power."""
    z = float(norm.ppf(1 - alpha / 2))
    return float(brentq(lambda effect: ndtr(effect - z) + ndtr(-effect - z) - power, 0.0, 40.0))


def _values(metric: Metric, *arms: Aggregates) -> list[float]:
    denominators = [arm.mean(metric.denominator) for arm in arms]
    return [
        arm.mean(metric.numerator) / denominator if denominator else math.nan
        for arm, denominator in zip(arms, denominators, strict=True)
    ]


def _finite(value: float, scale: float) -> float | None:
    return value * scale if math.isfinite(value) else None


def _against_zero(definition: tt.RatioOfMeans, control: Aggregates) -> dict[str, Any]:
    """A treatment at exactly zero has no logarithm: the interval is that of the difference, over the control mean."""
    mean = control.mean(definition.numer) / control.mean(definition.denom)
    error = math.sqrt(control.ratio_var(definition.numer, definition.denom) / control.count()) / mean
    if error == 0:
        return {"lift": -1.0, "withheld": f"no {definition.numer} in the treatment, no variance in the control"}
    half = float(norm.ppf((1 + definition.confidence_level) / 2)) * error
    return {"lift": -1.0, "interval": [-1 - half, -1 + half], "p": float(2 * norm.sf(1 / error)), "withheld": None}


def _log_variance(metric: Metric, covariates: bool, control: Aggregates, treatment: Aggregates, means: Any) -> float:
    """Delta-method variance of log(m_t / m_c) for (adjusted) means (m_c, m_t)."""
    total = control + treatment
    return sum(
        _adjusted_variance(metric, covariates, total, arm) / mean**2 / arm.count()
        for arm, mean in zip((control, treatment), means, strict=True)
    )


def _adjusted_variance(metric: Metric, covariates: bool, total: Aggregates, arm: Aggregates) -> float:
    """Variance of a user's (ratio) value in an arm, CUPED with the θ of all users."""
    value, before = (metric.numerator, metric.denominator), _before(metric, covariates)
    theta = total.ratio_cov(*value, *before) / total.ratio_var(*before) if covariates else 0.0
    return float(arm.ratio_var(*value) + theta**2 * arm.ratio_var(*before) - 2 * theta * arm.ratio_cov(*value, *before))


def _before(metric: Metric, covariates: bool) -> tuple[str | None, str | None]:
    return metric.before if covariates else (None, None)


def _informative(metric: Metric, control: Aggregates, treatment: Aggregates) -> bool:
    """Whether the covariate varies at all; one that does not would divide by zero."""
    total, before = control + treatment, _before(metric, True)
    return bool(total.mean(before[1]) > 0 and total.mean(before[0]) > 0 and total.ratio_var(*before) > 0)
