"""Reads the Feast online store: a request's user and query, and all items for the snapshot; only here.

Features come raw (strings, numbers, lists), as the sample job gets them from the same feature views. A remote store
is asked through `get_online_features`, which makes one round trip of all views. A store in this process has none to
save: its views are read by the interface that all of Feast's online stores have, which costs half of the time, as
neither the registry nor a response message is worked through. On-demand features come from the function that Feast
would call with a data frame of one row.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import features.store  # noqa: F401  it imports Feast at half the cost, if it is the first to do so

# isort: split
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type

from features.on_demand import user_moments
from features.store.repo.definitions import TABLES
from features.store.repository import open_online
from serving.inputs import FeatureStoreError, UserFeatures, UserInputs
from uniscale.errors import ServingError
from uniscale.samples import SampleSpec

MOMENTS = "user_moments"  # the on-demand feature view
NO_QUERY = ""  # the key asked for when a request has no query; no log has it
ITEMS_A_READ = 20  # some 5 ms: as long as a request beside a reload of the snapshot may have to wait for the store
CONNECT_SECONDS = 1.0  # of a remote store at least: a handshake over a network takes longer than a short deadline


class OnlineFeatures:
    """The online store of a features folder, read for the views of some feature services.

    Args:
        features: features folder with a store.
        spec: the features that requests become, of these views.
        services: by name; a view that none of them holds is not read.
        patience: seconds after which a remote store that does not answer counts as lost, unless its connection says.
    """

    def __init__(self, features: Path, spec: SampleSpec, services: Sequence[str], patience: float = 1.0):
        self._inputs = UserInputs(spec)
        self._lock = threading.Lock()  # Feast's online stores keep one connection, which threads may not share
        self._store = open_online(features)
        references = self._references(services)
        self._item_references = [each for each in references if _key(each) == "item_id"]
        self._request_references = [each for each in references if each not in self._item_references]
        self._has_moments = any(each.startswith(f"{MOMENTS}:") for each in references)
        settings = self._store.config.online_store
        if settings.type == "redis":  # its client would wait without end for an answer, and try a lost server for 8 s
            settings.connection_string = _patient(settings.connection_string, patience)
        self._local = get_online_store_from_config(settings) if settings.type == "sqlite" else None
        names: dict[str, list[str]] = {"user_behaviours": ["behaviour_ts"]} if self._has_moments else {}
        for reference in self._request_references:
            view, _, feature = reference.partition(":")
            if view != MOMENTS:
                names[view] = [*names.get(view, ()), feature]
        self._views = [(self._store.get_feature_view(view), [*dict.fromkeys(named)]) for view, named in names.items()]

    def read(self, user_id: str, query: str | None, asked: float) -> UserFeatures:
        """Features of a user and a query; the unknown have empty ones, as new users and queries had in the samples.

        Args:
            user_id, query: of the request.
            asked: its time, seconds since 1970, which completes the on-demand features.

        Raises:
            FeatureStoreError: the store cannot be read.
        """
        key = {"user_id": user_id, "query": NO_QUERY if query is None else query}
        if self._local is None:
            stored = [f"{view.name}:{feature}" for view, features in self._views for feature in features]
            raw = {name: values[0] for name, values in self._get(stored, [key]).items()}
        else:
            raw = self._read_local(self._local, key)
        if self._has_moments:
            moments = user_moments([raw.get("behaviour_ts")], np.array([asked]))
            raw |= {name: float(value[0]) for name, value in moments.items()}
        return self._inputs({**raw, "user_id": user_id, "query": query})

    def items(self, item_ids: Sequence[str], share: float = 1.0) -> pa.Table:
        """Raw feature columns of items, beside `item_id`, in the order given.

        Args:
            item_ids: the items.
            share: of the time, in (0, 1], to work on it; requests on other threads have the rest to themselves.

        Raises:
            FeatureStoreError: the store cannot be read.
        """
        columns: dict[str, list] = {"item_id": list(item_ids)}
        for start in range(0, len(item_ids), ITEMS_A_READ):
            began = time.monotonic()
            keys = [{"item_id": item_id} for item_id in item_ids[start : start + ITEMS_A_READ]]
            for name, values in self._get(self._item_references, keys).items():
                if name != "item_id":
                    columns.setdefault(name, []).extend(values)
            time.sleep((time.monotonic() - began) * (1 / share - 1))
        return pa.table(columns)

    def _get(self, references: list[str], keys: list[dict[str, Any]]) -> dict[str, list]:
        with self._lock, _feast_errors():
            return self._store.get_online_features(features=references, entity_rows=keys).to_dict()

    def _read_local(self, store: OnlineStore, key: dict[str, str]) -> dict[str, Any]:
        """Feature: value, for the features that the key's entities have."""
        raw: dict[str, Any] = {}
        with self._lock, _feast_errors():
            for view, features in self._views:
                (join_key,) = view.join_keys
                entity = EntityKey(join_keys=[join_key], entity_values=[Value(string_val=key[join_key])])
                (_, found), *_ = store.online_read(self._store.config, view, [entity], features)
                known = found or {}  # of all the view's features, whatever was asked for
                raw |= {name: feast_value_type_to_python_type(known[name]) for name in features if name in known}
        return raw

    def _references(self, services: Sequence[str]) -> list[str]:
        offered = {service.name: service for service in self._store.list_feature_services()}
        if missing := sorted(set(services) - set(offered)):
            raise ServingError(
                f"the feature store has no feature service {missing}, only {sorted(offered)}: package the models again"
            )
        found = [
            f"{view.name}:{feature.name}"
            for name in services
            for view in offered[name].feature_view_projections
            for feature in view.features
        ]
        return list(dict.fromkeys(found))


def _patient(connection_string: str, patience: float) -> str:
    """Feast's Redis connection string with bounds on waiting, where it has none of its own."""
    bounds = {"retry": "null", "socket_timeout": patience, "socket_connect_timeout": max(patience, CONNECT_SECONDS)}
    given = {setting.partition("=")[0] for setting in connection_string.split(",")}
    return ",".join([connection_string, *(f"{name}={bound}" for name, bound in bounds.items() if name not in given)])


def _key(reference: str) -> str | None:
    """Entity key of a feature's view; on-demand features have none of their own."""
    return TABLES[view][0] if (view := reference.partition(":")[0]) in TABLES else None


@contextmanager
def _feast_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Feast passes on what its stores raise: sqlite3, redis and registry errors
        raise FeatureStoreError(f"the online store cannot be read: {type(error).__name__}: {error}") from error
