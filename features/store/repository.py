"""The Feast store of a FEATURES folder: written once by `materialise`, then opened online or for retrieval.

Feast records absolute source paths in its registry. A FEATURES folder may be moved or mounted read-only elsewhere, so
`open_offline` applies the same definitions, with this folder's paths, to a registry in a scratch folder of its own;
`open_online` reads the recorded registry, which needs no source path.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import yaml
from feast import FeatureStore, RepoConfig

from features.store.repo.definitions import definitions
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.samples import SampleSpec
from uniscale.sections import FeatureConfig

PROJECT = "uniscale"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WITHOUT_BEHAVIOUR = {"user_profile", "item_versions"}


def materialise(features: Path, config: FeatureConfig, as_of: datetime, known_until: datetime) -> FeatureStore:
    """Write `store/`: settings, registry, and the online store with every entity's newest row at or before an instant.

    Args:
        features: FEATURES folder.
        config: which online store.
        as_of: the instant of statistics and behaviours, which hold what users did.
        known_until: the instant of item attributes and profiles, which hold no behaviour.
    """
    folder = Path(features) / "store"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(_settings(config), sort_keys=False))
    store = apply(features, Path(features).resolve() / "tables")
    with offline_work():
        views = [view.name for view in store.list_batch_feature_views()]
        of_entities = [name for name in views if name in WITHOUT_BEHAVIOUR]
        store.materialize(EPOCH, as_of, [name for name in views if name not in WITHOUT_BEHAVIOUR])
        if of_entities:
            store.materialize(EPOCH, known_until, of_entities)
    return store


def apply(features: Path, tables: Path) -> FeatureStore:
    """Record the definitions in the folder's registry, with `tables` as the folder of their sources."""
    store = open_online(features)
    store.apply(definitions(SampleSpec.load(features), LogDescription.load(features), tables))
    return store


@contextmanager
def offline_work() -> Iterator[None]:
    """Around Feast's offline calls: no progress prints, no deprecation warnings of its libraries, DuckDB released.

    Feast's duckdb store works on Ibis's default connection, which nothing closes: at exit DuckDB then reports leaks.
    """
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            yield
        finally:
            backend = ibis.options.default_backend
            if backend is not None:
                backend.disconnect()
                backend.con = ibis.options.default_backend = None


def open_online(features: Path) -> FeatureStore:
    """The store whose online side serves this folder; reading and pushing only.

    Raises:
        DataError: the folder holds no feature store.
    """
    folder = Path(features).resolve() / "store"
    if not (folder / "feature_store.yaml").exists():
        raise DataError(f"no feature store in {folder}: build the features first (uniscale features)")
    logging.getLogger("feast").setLevel(logging.WARNING)
    return FeatureStore(repo_path=str(folder))


@contextmanager
def open_offline(features: Path) -> Iterator[FeatureStore]:
    """The store for point-in-time retrieval from this folder's tables, wherever the folder lies now."""
    tables = Path(features).resolve() / "tables"
    with tempfile.TemporaryDirectory(prefix="uniscale-feast-") as scratch, offline_work():
        settings = {**_settings(None), "registry": {"registry_type": "file", "path": f"{scratch}/registry.db"}}
        settings["online_store"] = {"type": "sqlite", "path": f"{scratch}/online.db"}
        store = FeatureStore(config=RepoConfig(**settings, repo_path=Path(scratch)))
        store.apply(definitions(SampleSpec.load(features), LogDescription.load(features), tables))
        yield store


def _settings(config: FeatureConfig | None) -> dict[str, Any]:
    online: dict[str, str] = {"type": "sqlite", "path": "online.db"}
    if config is not None and config.online_store == "redis":
        online = {"type": "redis", "connection_string": config.redis_url}
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": {"registry_type": "file", "path": "registry.db"},
        "offline_store": {"type": "duckdb"},
        "online_store": online,
        "materialization": {"pull_latest_features": True},
        "entity_key_serialization_version": 3,
    }
