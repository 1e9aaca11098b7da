"""Metrics of an experiment as data: numerator, denominator, direction, window, covariate, and one line on each.

Numerator and denominator are columns of the per-user table of `monitoring.outcomes` (or of a table of one's own); the
unit of analysis is always the user, because the user is the unit of randomisation. A ratio such as CTR is a ratio of
user means (delta method): a pooled z-test over impressions takes clicks of one user as independent and rejects an A/A
four times too often, so it is not offered.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

Unit = Literal["share", "count", "money", "ms"]


@dataclass(frozen=True)
class Metric:
    """One metric; a `denominator` makes it a ratio of sums, a `quantile` that of single requests, else a user mean."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    label: str
    numerator: str
    better: Literal["higher", "lower"]
    unit: Unit
    meaning: str
    denominator: str | None = None
    counts: str = ""  # column whose total is the number of conversions (burn-in); the numerator unless given
    covariate: bool | str = True  # CUPED: the same quantity before the experiment, or the column that holds it
    scale: float = 1.0
    minimum_days: int = 1
    window_days: int | None = None  # days from a user's first request that count; users still within it are left out
    quantile: float | None = None
    absent: str = ""  # why it is withheld when nothing was counted in either variant

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the per-user table that it needs, covariates left out."""
        return (self.numerator,) if self.denominator is None else (self.numerator, self.denominator)

    @property
    def before(self) -> tuple[str, str | None]:
        """Columns of its covariate: numerator and denominator."""
        if isinstance(self.covariate, str):
            return self.covariate, None
        return f"{self.numerator}_before", f"{self.denominator}_before" if self.denominator else None


METRICS: tuple[Metric, ...] = (
    Metric(
        "ctr",
        "CTR",
        "clicks",
        "higher",
        "share",
        "Exposed items that were clicked, over all exposed items; clustered by user.",
        denominator="impressions",
    ),
    Metric("clicks_per_user", "Clicks per user", "clicks", "higher", "count", "Clicked items a user."),
    Metric(
        "orders_per_user",
        "Orders per user",
        "orders",
        "higher",
        "count",
        "Purchases credited to the experiment's requests, a user.",
        absent="no purchase refers to a request of the experiment",
    ),
    Metric(
        "gmv_per_user",
        "GMV per user",
        "gmv",
        "higher",
        "money",
        "Amount of those purchases, a user.",
        counts="orders",
        absent="no purchase with an amount refers to a request of the experiment",
    ),
    Metric(
        "conversion",
        "Conversion",
        "converted",
        "higher",
        "share",
        "Users with at least one such purchase.",
        absent="no purchase refers to a request of the experiment",
    ),
    Metric(
        "rpm",
        "RPM",
        "charges",
        "higher",
        "money",
        "Advertising charges per 1,000 exposed items.",
        denominator="impressions",
        counts="charged",
        scale=1000.0,
        absent="the logs hold no advertising charges for the experiment's requests",
    ),
    Metric(
        "change_query_rate",
        "Change-query rate",
        "reformulated",
        "lower",
        "share",
        "Requests followed within 10 minutes by the same user's request with another query.",
        denominator="requests",
        absent="no user changed a query within 10 minutes, so the logs show no reformulations",
    ),
    Metric(
        "lt30",
        "LT30",
        "active_days",
        "higher",
        "count",
        "Days with a request in the last 30 days, a user.",
        counts="active_days",
        covariate=False,
        minimum_days=30,
    ),
    Metric(
        "fallback_rate",
        "Fallback rate",
        "fallbacks",
        "lower",
        "share",
        "Requests that the model did not answer itself (deadline, error), over all requests.",
        denominator="requests",
        covariate=False,
        absent="every request was answered by the model",
    ),
)

LATENCY = Metric(
    "latency_p99_ms",
    "Latency p99",
    "latency_ms",
    "lower",
    "ms",
    "99th percentile of a request's time in the service; interval clustered by user.",
    covariate=False,
    quantile=0.99,
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in (*METRICS, LATENCY)}
