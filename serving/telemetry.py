"""The service's own Prometheus metrics; every label has a small fixed set of values.

BentoML starts its workers in prometheus_client's multi-process mode (a folder of memory-mapped values), so one scrape
of any worker shows the sum over all of them.
"""

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STAGES = ("queue", "features", "batch", "model", "total")  # seconds of a request, in order; total is end to end


class Telemetry:
    """Counters and histograms of one worker; `multiprocess_folder` is where the other workers' values are."""

    def __init__(self, multiprocess_folder: Path | None = None):
        registry = CollectorRegistry()
        self._registry, self._folder = registry, multiprocess_folder
        self.stages = Histogram(
            "uniscale_stage_seconds", "Latency by stage", ["stage"], buckets=BUCKETS, registry=registry
        )
        self.answers = Counter(
            "uniscale_answers_total",
            "Answers by variant, model version and fallback (none: the model's own order)",
            ["variant", "version", "fallback"],
            registry=registry,
        )
        self.refusals = Counter("uniscale_refusals_total", "Requests refused, by status", ["status"], registry=registry)
        self.candidates = Histogram(
            "uniscale_candidates",
            "Candidates a request",
            buckets=(10, 50, 100, 200, 500, 1000, 2000),
            registry=registry,
        )
        self.unknown_items = Counter(
            "uniscale_unknown_items_total", "Candidates the catalogue does not have", registry=registry
        )
        self.swaps = Counter(
            "uniscale_routing_changes_total",
            "Changes of the routing, accepted or refused",
            ["outcome"],
            registry=registry,
        )
        self.item_reloads = Counter(
            "uniscale_item_reloads_total",
            "Reloads of the items' features, done or failed",
            ["outcome"],
            registry=registry,
        )
        # A rate or an increase needs a value from before: a series that began with its first event would hide it.
        for counter, outcomes in ((self.swaps, ("accepted", "refused")), (self.item_reloads, ("done", "failed"))):
            for outcome in outcomes:
                counter.labels(outcome)
        self.shadows = Counter(
            "uniscale_shadows_total", "Shadow scorings: scored, dropped or failed", ["outcome"], registry=registry
        )
        self.user_states = Counter(
            "uniscale_user_states_total",
            "Requests whose user's behaviours were computed before (hit), but for new ones (extended), or not (miss)",
            ["outcome"],
            registry=registry,
        )
        self.evicted = Counter(
            "uniscale_user_states_evicted_total", "Users' states dropped for room", registry=registry
        )
        self.states_kept = Gauge(
            "uniscale_user_states_kept", "Users' states in memory", multiprocess_mode="livesum", registry=registry
        )
        self.state_bytes = Gauge(
            "uniscale_user_states_bytes", "Memory of users' states", multiprocess_mode="livesum", registry=registry
        )
        self.inputs_dropped = Counter(
            "uniscale_input_rows_dropped_total",
            "Rows of the log of inputs dropped for a full buffer",
            registry=registry,
        )
        self.log_dropped = Counter(
            "uniscale_log_rows_dropped_total",
            "Serving-log rows dropped: for a full buffer, or as no file took them",
            registry=registry,
        )

    def states_changed(self, size_bytes: int, states: int, evicted: int) -> None:
        """What `serving.user_states.UserStates` holds now, and how many it has just dropped for room."""
        self.state_bytes.set(size_bytes)
        self.states_kept.set(states)
        self.evicted.inc(evicted)

    def exposition(self) -> bytes:
        """All values in Prometheus' text format."""
        registry = self._registry
        if self._folder is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self._folder))
        return generate_latest(registry)
