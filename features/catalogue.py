"""The catalogue of model inputs: which features a dataset offers, where each comes from, and what a missing one is.

Semantic blocks follow UniScale 3.4.1 (user, query, context, item, behaviour). Position, retrieval score, sampling
kind, label provenance and the flag of randomised exposure are never features: they tell how a sample was made.
"""

import re

from features.on_demand import LONGEST_IDLE_HOURS
from uniscale.logs import LogDescription
from uniscale.samples import Feature, SampleSpec
from uniscale.sections import FeatureConfig

CATEGORY_LEVELS = 3
# Name of the count that a task's event type feeds; other tasks count as `<task>_events`.
COUNT_NAMES = {"click": "clicks", "conversion": "orders"}
RATE_NAMES = {"click": "ctr", "conversion": "cvr"}
# On-demand features of a request (`features.on_demand`), with what they are for a user who has no history.
MOMENTS = {"user_idle_hours": LONGEST_IDLE_HOURS, "user_behaviours_1h": 0.0}
# Smoothed rate = (events + RATE_PRIOR * RATE_EXPOSURES) / (exposures + RATE_EXPOSURES).
RATE_PRIOR, RATE_EXPOSURES = 0.05, 20.0
# Features whose raw column has another name; every other feature's raw column carries the feature's own name.
RAW_COLUMNS = {
    "user_id_hash": "user_id",
    "query_hash": "query",
    "item_hash": "item_id",
    "behaviour_item": "behaviour_item_id",
}


def counts(description: LogDescription) -> dict[str, str]:
    """Daily counts of a dataset: name of the count -> event type, in task order."""
    return {COUNT_NAMES.get(task, f"{task}_events"): event for task, event in description.tasks.items()}


def rate_name(config: FeatureConfig, description: LogDescription) -> str:
    """Column of the smoothed rate of the primary task's events an exposure, over the longest window."""
    task = next(iter(description.tasks))
    return f"item_{RATE_NAMES.get(task, f'{task}_rate')}_{max(config.windows_days)}d"


def context_names(description: LogDescription) -> tuple[str, ...]:
    """Context columns of `requests` that may be features: all but the flag of randomised exposure."""
    return tuple(name for name in description.context if name != description.randomised_column)


def user_statistics(config: FeatureConfig, description: LogDescription) -> tuple[str, ...]:
    """Columns of a user's daily statistics; empty where users do not return."""
    if not description.has_users:
        return ()
    windows = [f"user_{count}_{window}d" for window in config.windows_days for count in counts(description)]
    return (*windows, f"user_mean_price_{max(config.windows_days)}d")


def query_statistics(config: FeatureConfig, description: LogDescription) -> tuple[str, ...]:
    """Columns of a query's daily statistics."""
    names = ("searches", *counts(description))
    return tuple(f"query_{name}_{window}d" for window in config.windows_days for name in names)


def item_statistics(config: FeatureConfig, description: LogDescription) -> tuple[str, ...]:
    """Columns of an item's daily statistics."""
    names = ("exposures", *counts(description))
    windows = tuple(f"item_{name}_{window}d" for window in config.windows_days for name in names)
    return (*windows, rate_name(config, description))


def sample_spec(config: FeatureConfig, description: LogDescription, content_dim: int = 0) -> SampleSpec:
    """The model inputs that a dataset supplies; what its description lacks is left out.

    `content_dim` is the width of the items' frozen embedding, which only the data know.
    """
    features = (
        *_user(config, description),
        *_query(config, description),
        *_context(description),
        *_item(config, description),
        *_behaviour(description),
    )
    return SampleSpec(
        features=features,
        domains=description.domains,
        scenarios=description.scenarios,
        tasks=tuple(description.tasks),
        content_dim=content_dim if description.has_embeddings else 0,
        text_dim=config.text_dim if description.has_text else 0,
        max_behaviours=config.max_behaviours,
    )


def raw_column(feature: Feature) -> str:
    """Column of the retrieved feature tables (or of the request) that a feature is made of, before hashing."""
    return RAW_COLUMNS.get(feature.name, feature.name)


def missing_value(feature: Feature) -> float | None:
    """What a numeric feature is when its entity has no row: no events counted, the prior rate, else unknown.

    Zero is the truth for a count without events, so its absence must not show as a null (spec: no tell-tales).
    """
    if feature.name in MOMENTS:
        return MOMENTS[feature.name]
    if re.search(r"_\d+d$", feature.name) is None:
        return None
    return 0.0 if feature.kind == "count" else RATE_PRIOR


def _user(config: FeatureConfig, description: LogDescription) -> tuple[Feature, ...]:
    names = [f"user_{name}" for name in description.profile]
    profile = tuple(Feature(name, "user", "id", "request", name, "user_profile") for name in names)
    if not description.has_users:
        return profile
    statistics = user_statistics(config, description)
    return (
        Feature("user_id_hash", "user", "id", "request", "user"),
        *profile,
        *(Feature(name, "user", "count", "request", view="user_statistics") for name in statistics),
        *(Feature(name, "user", "count", "request", view="user_moments") for name in MOMENTS),
    )


def _query(config: FeatureConfig, description: LogDescription) -> tuple[Feature, ...]:
    names = query_statistics(config, description)
    statistics = (Feature(name, "query", "count", "request", view="query_statistics") for name in names)
    return (Feature("query_hash", "query", "id", "request", "query"), *statistics)


def _context(description: LogDescription) -> tuple[Feature, ...]:
    names = (*context_names(description), "hour", "weekday", "scenario")
    return tuple(Feature(f"context_{name}", "context", "id", "request", f"context_{name}") for name in names)


def _item(config: FeatureConfig, description: LogDescription) -> tuple[Feature, ...]:
    ids = {f"item_category_{level}": f"category_{level}" for level in range(1, CATEGORY_LEVELS + 1)}
    ids |= {"item_brand": "brand", "item_seller": "seller"}
    ids |= {f"item_{name}": f"item_{name}" for name in description.item_categories}
    rate = rate_name(config, description)
    numbers = [f"item_{name}" for name in description.item_numbers]
    statistics = item_statistics(config, description)
    return (
        Feature("item_hash", "item", "id", "candidate", "item"),
        *(Feature(name, "item", "id", "candidate", table, "item_versions") for name, table in ids.items()),
        Feature("item_price", "item", "count", "candidate", view="item_versions"),
        *(Feature(name, "item", "number", "candidate", view="item_versions") for name in numbers),
        *(
            Feature(name, "item", "number" if name == rate else "count", "candidate", view="item_statistics")
            for name in statistics
        ),
    )


def _behaviour(description: LogDescription) -> tuple[Feature, ...]:
    if not description.has_users:
        return ()
    tables = {"behaviour_item": "item"}
    tables |= {f"behaviour_category_{level}": f"category_{level}" for level in range(1, CATEGORY_LEVELS + 1)}
    tables |= {"behaviour_brand": "brand", "behaviour_type": "behaviour_type"}
    return tuple(
        Feature(name, "behaviour", "id", "behaviour", table, "user_behaviours") for name, table in tables.items()
    )
