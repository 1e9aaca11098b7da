"""Reads a request's user and query features from the Feast online store: one call a request, the only file with Feast.

They come raw (strings, numbers, lists), as the sample job gets them from the same feature services.
"""

import threading
from pathlib import Path

from features.store.repository import open_online
from serving.inputs import FeatureStoreError, UserFeatures, user_features
from uniscale.samples import SampleSpec

SERVICES = ("ranking_requests", "ranking_queries")
NO_QUERY = ""  # the key asked for when a request has no query; no log has it


class OnlineFeatures:
    """The online store of a features folder, read for the features of one spec."""

    def __init__(self, features: Path, spec: SampleSpec):
        self._spec = spec
        self._lock = threading.Lock()  # Feast's online stores keep one connection, which threads may not share
        self._store = open_online(features)
        offered = {service.name: service for service in self._store.list_feature_services()}
        self._references = [
            f"{view.name}:{feature.name}"
            for name in SERVICES
            if name in offered
            for view in offered[name].feature_view_projections
            for feature in view.features
        ]

    def read(self, user_id: str, query: str | None) -> UserFeatures:
        """Features of a user and a query; the unknown have empty ones, as new users and queries had in the samples.

        Raises:
            FeatureStoreError: the store cannot be read.
        """
        key = {"user_id": user_id, "query": NO_QUERY if query is None else query}
        try:
            with self._lock:
                answer = self._store.get_online_features(features=self._references, entity_rows=[key]).to_dict()
        except Exception as error:  # Feast passes on what its stores raise: sqlite3, redis and registry errors
            raise FeatureStoreError(f"the online store cannot be read: {type(error).__name__}: {error}") from error
        raw = {name: values[0] for name, values in answer.items()}
        return user_features(self._spec, {**raw, "user_id": user_id, "query": query})
