"""Stage 2, hierarchical label attribution: which sample an event makes positive (UniScale 3.3.1).

The primary task is bound to its exposure in the target domain; further tasks of that domain go to the user's last
search click on the item. Elsewhere a click goes to the user's exposed sample of the item, else to an unexposed one; a
conversion to a search-clicked sample, else an exposed, else an unexposed one. A task whose event type is "click" is a
click, any other a conversion, the primary task included: where nobody clicks, the clicked samples are those that a
primary event was bound to. Only samples at or before the event and within the window of its kind count; within a
level the latest request wins, ties by request_id. An event lands on one sample at most; of several that land on one
sample a single label remains.

Samples and events of one (user, item) are walked together in time order: the latest sample of each level is a
running maximum, so the cost is linear in both however often a user comes back to an item.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.splits import label_window
from uniscale.logs import CLICK
from uniscale.samples import LabelSource, Sampling
from uniscale.sections import SamplesConfig


@dataclass(frozen=True)
class Rules:
    """What attribution needs to know: the served domain, task -> event type (the primary first), and task -> window."""

    target: str
    tasks: Mapping[str, str]
    windows: Mapping[str, timedelta]  # how long after a sample an event of the task may label it

    @classmethod
    def of(cls, config: SamplesConfig, target: str, tasks: Mapping[str, str]) -> "Rules":
        """The rules of a configuration and a source."""
        return cls(target, tasks, {task: label_window(event, config) for task, event in tasks.items()})

    @property
    def primary(self) -> str:
        """The task that is bound to its exposure."""
        return next(iter(self.tasks))

    def micros(self, task: str) -> int:
        """The window of a task in microseconds."""
        return self.windows[task] // timedelta(microseconds=1)

    @property
    def clicks(self) -> list[str]:
        """The tasks that are clicks; the others are conversions."""
        return [task for task, event in self.tasks.items() if event == CLICK]


def task_events(events: DataFrame, rules: Rules) -> DataFrame:
    """The events that some task counts.

    Returns:
        event_id, task, user_id, item_id, domain, at (microseconds), own (whether in the target domain),
        event_request (the request the event names, or null), day.
    """
    task = F.element_at(_literal_map({event: task for task, event in rules.tasks.items()}), F.col("type"))
    return events.where(F.col("type").isin(list(rules.tasks.values()))).select(
        "event_id",
        task.alias("task"),
        "user_id",
        "item_id",
        "domain",
        F.unix_micros("ts").alias("at"),
        (F.col("domain") == rules.target).alias("own"),
        F.col("request_id").alias("event_request"),
        "day",
    )


def bind_clicks(samples: DataFrame, events: DataFrame, rules: Rules) -> DataFrame:
    """Landings of the target domain's primary events: each on the exposure that its request_id names.

    Args:
        samples: request_id, user_id, item_id, asked (microseconds of the request), sampling.
        events: result of `task_events`.

    Returns:
        event_id, task, at, request_id, item_id, user_id, asked, source.
    """
    exposed = samples.where(F.col("sampling") == int(Sampling.EXPOSED))
    clicks = events.where(F.col("own") & (F.col("task") == rules.primary)).withColumnRenamed(
        "event_request", "request_id"
    )
    age = F.col("at") - F.col("asked")
    return (
        exposed.join(
            clicks.select("event_id", "task", "at", "request_id", "item_id", "user_id"),
            ["request_id", "item_id", "user_id"],
        )
        .where(age.between(0, rules.micros(rules.primary)))
        .select(
            "event_id",
            "task",
            "at",
            "request_id",
            "item_id",
            "user_id",
            "asked",
            _source(LabelSource.IN_DOMAIN).alias("source"),
        )
    )


def attribute(samples: DataFrame, clicks: DataFrame, events: DataFrame, rules: Rules) -> DataFrame:
    """Landings of all other events by the hierarchy of levels.

    Args:
        samples: as for `bind_clicks`.
        clicks: result of `bind_clicks`.
        events: result of `task_events`.

    Returns:
        event_id, task, at, request_id, item_id, source; events that no sample earns are left out.
    """
    rest = events.where(~(F.col("own") & (F.col("task") == rules.primary)))
    keys = rest.select("user_id", "item_id").distinct()
    exposed = F.col("sampling") == int(Sampling.EXPOSED)
    shown = samples.join(keys, ["user_id", "item_id"], "left_semi").select(
        "user_id",
        "item_id",
        F.col("asked").alias("at"),
        F.when(exposed, F.struct("asked", "request_id")).alias("exposed"),
        F.when(~exposed, F.struct("asked", "request_id")).alias("unexposed"),
    )
    clicked = clicks.select(
        "user_id",
        "item_id",
        "at",
        F.struct("asked", "request_id").alias("clicked"),
        F.struct("at", "asked", "request_id").alias("last_click"),
    )
    walk = shown.unionByName(clicked, allowMissingColumns=True).unionByName(
        rest.select("user_id", "item_id", "at", "event_id", "task", "own"), allowMissingColumns=True
    )
    past = Window.partitionBy("user_id", "item_id").orderBy("at").rangeBetween(Window.unboundedPreceding, 0)
    levels = ("exposed", "unexposed", "clicked", "last_click")
    known = walk.withColumns({level: F.max(level).over(past) for level in levels}).where("event_id is not null")

    oldest = F.col("at") - window_of("task", rules)

    def level(name: str, source: LabelSource) -> Column:
        landing = F.struct(_source(source).alias("source"), F.col(f"{name}.request_id").alias("request_id"))
        return F.when(F.col(f"{name}.asked") >= oldest, landing)

    anywhere = F.coalesce(level("exposed", LabelSource.EXPOSED), level("unexposed", LabelSource.UNEXPOSED))
    landing = (
        F.when(F.col("own"), level("last_click", LabelSource.IN_DOMAIN))
        .when(F.col("task").isin(rules.clicks), anywhere)
        .otherwise(F.coalesce(level("clicked", LabelSource.CLICKED), anywhere))
    )
    return (
        known.withColumn("landing", landing)
        .where("landing is not null")
        .select("event_id", "task", "at", "landing.request_id", "item_id", "landing.source")
    )


def window_of(task: str, rules: Rules) -> Column:
    """Microseconds of the window of the task that a column names."""
    return F.element_at(_literal_map({name: rules.micros(name) for name in rules.tasks}), F.col(task))


def _source(source: LabelSource) -> Column:
    return F.lit(int(source)).cast("tinyint")


def _literal_map(values: Mapping[str, str] | Mapping[str, int]) -> Column:
    return F.create_map(*(F.lit(part) for pair in values.items() for part in pair))
