"""Always-valid inference on the ratio of two arms: the mixture sequential probability ratio test on its logarithm.

θ̂ = log(treatment / control) has the delta-method variance V. Mixing the likelihood ratio of θ against θ₀ over
θ ~ N(θ₀, τ²) gives

    Λ(θ₀) = √(V / (V + τ²)) · exp( τ² (θ̂ − θ₀)² / (2 V (V + τ²)) ),

a martingale under θ₀, so that P(Λ ever reaches 1/α) ≤ α (Ville). The interval {θ₀ : Λ(θ₀) < 1/α} therefore covers θ
at every look at once, and one may stop at any of them. Sources: Robbins (1970); Johari, Koomen, Pekelis and Walsh,
Always Valid Inference (2022). θ̂ is only nearly normal, hence the burn-in.
"""

import math
from dataclasses import dataclass

BURN_IN = 100  # conversions an arm before the normal approximation of a log ratio is trusted


@dataclass(frozen=True)
class AlwaysValid:
    """Relative lift interval (−0.02 is −2 %) that holds at every look, and the p-value that may be watched."""

    lower: float
    upper: float
    p: float


def always_valid(log_ratio: float, variance: float, alpha: float, mixture: float) -> AlwaysValid:
    """Interval and p-value of a relative lift, valid under continuous monitoring.

    Args:
        log_ratio: θ̂, the logarithm of treatment over control.
        variance: V > 0, its variance, clustered by the unit of randomisation.
        alpha: chance that the interval ever misses.
        mixture: τ > 0 on the log scale, the size of lift at which the interval is to be tightest.
    """
    assert variance > 0 and mixture > 0, (variance, mixture)
    total = variance + mixture**2
    half = math.sqrt(variance * total / mixture**2 * (2 * math.log(1 / alpha) + math.log(total / variance)))
    log_mixture_ratio = 0.5 * math.log(variance / total) + (mixture * log_ratio) ** 2 / (2 * variance * total)
    return AlwaysValid(
        lower=math.expm1(log_ratio - half),
        upper=math.expm1(min(log_ratio + half, 700.0)),  # beyond 700 exp overflows a double
        p=math.exp(min(0.0, -log_mixture_ratio)),
    )
