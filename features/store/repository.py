"""The Feast store of a FEATURES folder: written by `apply` and `materialise`, then opened online or for retrieval.

Feast records absolute source paths in its registry. A FEATURES folder may be moved or mounted read-only elsewhere, so
`open_offline` applies the same definitions, with this folder's paths, to a registry in a scratch folder of its own;
`open_online` reads the recorded registry, which needs no source path.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import yaml
from feast import FeatureStore, RepoConfig

from features.store.repo.definitions import Source, definitions, file_source, model_service, spark_source
from uniscale.artifacts import content_hash
from uniscale.errors import DataError
from uniscale.samples import SampleSpec
from uniscale.sections import FeatureConfig

PROJECT = "uniscale"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WITHOUT_BEHAVIOUR = {"user_profile", "item_versions"}
SETTINGS = "feature_store.yaml"
SOURCES: dict[str, Source] = {"duckdb": file_source, "spark": spark_source}


def materialise(features: Path, config: FeatureConfig, as_of: datetime, known_until: datetime) -> FeatureStore:
    """Fill `store/`'s online store with every entity's newest row at or before an instant.

    Each table is read once and whole, so DuckDB does it, whichever offline store joins features for samples.

    Args:
        features: FEATURES folder.
        config: which online store.
        as_of: the instant of statistics and behaviours, which hold what users did.
        known_until: the instant of item attributes and profiles, which hold no behaviour.
    """
    here = config.model_copy(update={"offline_store": "duckdb"})
    store = apply(features, Path(features).resolve() / "tables", here, as_of, known_until)
    with offline_work():
        views = [view.name for view in store.list_batch_feature_views()]
        of_entities = [name for name in views if name in WITHOUT_BEHAVIOUR]
        store.materialize(EPOCH, as_of, [name for name in views if name not in WITHOUT_BEHAVIOUR])
        if of_entities:
            store.materialize(EPOCH, known_until, of_entities)
    return store


def apply(features: Path, tables: Path, config: FeatureConfig, as_of: datetime, known_until: datetime) -> FeatureStore:
    """Write `store/`'s settings, and into its registry the definitions, whose sources lie in the folder `tables`.

    Args:
        features: FEATURES folder.
        tables: where its tables will lie.
        config: which stores.
        as_of, known_until: the instants that `materialise` fills the online store to.
    """
    folder = Path(features) / "store"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(
        yaml.safe_dump(_settings(config, folder.parent / "tables", (as_of, known_until)), sort_keys=False)
    )
    store = open_online(features)
    with _quiet():
        store.apply(definitions(SampleSpec.load(features), tables, SOURCES[config.offline_store]))
    return store


def add_models(features: Path, models: Mapping[str, SampleSpec]) -> None:
    """Record a feature service for each model, of the views that it reads (`definitions.model_service`).

    Args:
        features: FEATURES folder with a store.
        models: feature service -> spec of the model.
    """
    offered, tables = SampleSpec.load(features), Path(features).resolve() / "tables"
    services: list[Any] = [model_service(name, spec, offered, tables) for name, spec in models.items()]
    with _quiet():
        open_online(features).apply(services)


@contextmanager
def offline_work() -> Iterator[None]:
    """Around Feast's offline calls: quiet, and DuckDB released.

    Feast's duckdb store works on Ibis's default connection, which nothing closes: at exit DuckDB then reports leaks.
    """
    with _quiet():
        try:
            yield
        finally:
            backend = ibis.options.default_backend
            if backend is not None:
                backend.disconnect()
                backend.con = ibis.options.default_backend = None


@contextmanager
def _quiet() -> Iterator[None]:
    """No prints of Feast, nor warnings that its on-demand views and its Spark store are experimental."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        for experimental in ("On demand feature view", "The spark (offline store|data source)"):
            warnings.filterwarnings("ignore", experimental, RuntimeWarning)
        yield


def open_online(features: Path) -> FeatureStore:
    """The store whose online side serves this folder; reading and pushing only.

    Raises:
        DataError: the folder holds no feature store.
    """
    folder = Path(features).resolve() / "store"
    if not (folder / SETTINGS).exists():
        raise DataError(f"no feature store in {folder}: build the features first (uniscale features)")
    logging.getLogger("feast").setLevel(logging.WARNING)
    return FeatureStore(repo_path=str(folder))


@contextmanager
def open_offline(features: Path) -> Iterator[FeatureStore]:
    """The store for point-in-time retrieval from this folder's tables, wherever the folder lies now.

    A Spark offline store joins in the Spark session that is active, else in one that Feast starts; its workers must see
    the folder.
    """
    features = Path(features).resolve()
    recorded = yaml.safe_load((features / "store" / SETTINGS).read_text())
    with tempfile.TemporaryDirectory(prefix="uniscale-feast-") as scratch, offline_work():
        settings = {**recorded, "registry": {"registry_type": "file", "path": f"{scratch}/registry.db"}}
        settings["online_store"] = {"type": "sqlite", "path": f"{scratch}/online.db"}
        store = FeatureStore(config=RepoConfig(**settings, repo_path=Path(scratch)))
        source = SOURCES[recorded["offline_store"]["type"]]
        store.apply(definitions(SampleSpec.load(features), features / "tables", source))
        yield store


def _settings(config: FeatureConfig, tables: Path, instants: Sequence[datetime]) -> dict[str, Any]:
    project, online = PROJECT, {"type": "sqlite", "path": "online.db"}
    if config.online_store == "redis":
        # Builds share the server. Feast keeps what is there where a row is not newer, so keys must be a build's own;
        # equal tables are another build where the store stands at an earlier instant.
        until = "".join(f"_{instant:%Y%m%dT%H%M%S}" for instant in instants)
        project = f"{PROJECT}_{content_hash(tables)[:12]}{until}"
        online = {"type": "redis", "connection_string": config.redis_url}
    return {
        "project": project,
        "provider": "local",
        "registry": {"registry_type": "file", "path": "registry.db"},
        "offline_store": {"type": config.offline_store},
        "online_store": online,
        "materialization": {"pull_latest_features": True},
        "entity_key_serialization_version": 3,
    }
