"""The item snapshot: every item's features as columns in memory, hashed once, so a request only gathers rows.

A look-up of 500 items in the Feast online store costs 75 to 120 ms, a gather from this snapshot 0.01; hence Feast
defines and materialises the item features, and the service holds them, reloading the snapshot when it is too old.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.rows import Rows
from serving.inputs import item_column
from uniscale.samples import SampleSpec

RELOAD_SHARE = 0.2  # of the time: a model gives the interpreter up at each operation and gets it back late beside work


@dataclass(frozen=True)
class Catalogue:
    """All items as the candidates of one list-wise row; place 0 stands for an unknown item."""

    place_of: dict[str, int]  # item_id -> place
    rows: Rows  # R = 1, N = items + 1
    popularity: NDArray[np.float32]  # (N,), below every item's at place 0

    @classmethod
    def of(
        cls,
        spec: SampleSpec,
        item_ids: Sequence[str],
        index: NDArray[np.int32],
        columns: Mapping[str, NDArray],
        popularity: str,
    ) -> "Catalogue":
        """From model inputs by feature name, each of shape (items,).

        Args:
            spec: which candidate features, in which order.
            item_ids: the items.
            index: of each item in the frozen vectors (items.parquet), 0 where it has none.
            columns: feature name -> values.
            popularity: the feature that orders a fallback.
        """
        unknown: dict[str, NDArray] = {
            f.name: np.zeros(1, np.int64) if f.kind == "id" else np.full(1, np.nan, np.float32)
            for f in spec.select("candidate")
        }
        candidates = {name: np.concatenate([blank, columns[name]]) for name, blank in unknown.items()}
        ranks = np.nan_to_num(candidates[popularity].astype(np.float32))
        ranks[0] = -np.inf
        places = len(item_ids) + 1
        given = {**blank_request(spec), **candidates, "item": np.concatenate([np.zeros(1, np.int32), index])}
        rows = Rows.of(spec, given, np.array([0, places]), np.array([0, 0]))
        return cls({item_id: place for place, item_id in enumerate(item_ids, start=1)}, rows, ranks)

    @classmethod
    def from_tables(cls, spec: SampleSpec, latest: pa.Table, items: pa.Table, popularity: str) -> "Catalogue":
        """From the raw columns of every item (`OnlineFeatures.items`) and `items.parquet`.

        Raises:
            ServingError: a candidate feature of the spec has no raw column.
        """
        index_of = dict(zip(items["item_id"].to_pylist(), items["index"].to_pylist(), strict=True))
        item_ids = latest["item_id"].to_pylist()
        index = np.array([index_of.get(item_id, 0) for item_id in item_ids], np.int32)
        columns = {feature.name: item_column(feature, latest) for feature in spec.select("candidate")}
        return cls.of(spec, item_ids, index, columns, popularity)

    def most_popular(self, count: int) -> list[str]:
        """The first items of the fallback's order."""
        item_ids = list(self.place_of)
        return [item_ids[place] for place in np.argsort(-self.popularity[1:], kind="stable")[:count]]

    def places(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Place of each item, 0 for the unknown."""
        return np.fromiter(map(self.place_of.get, item_ids, repeat(0)), np.int64, len(item_ids))


def blank_request(spec: SampleSpec) -> dict[str, NDArray]:
    """Request-level columns of one request that nothing is known of, without behaviours."""
    lengths = {"request": 1, "behaviour": 0}
    return {f.name: np.zeros(lengths[f.level]) for f in spec.features if f.level in lengths} | {
        "domain_index": np.zeros(1),
        "scenarios": np.zeros((1, len(spec.scenarios))),
        "ts": np.zeros(1),
        "query_text": np.zeros((1, spec.text_dim)),
        "behaviour_index": np.zeros(0),
        "behaviour_ts": np.zeros(0),
    }


class Snapshot:
    """The current catalogue, reloaded on a thread of its own once it is older than `ttl_seconds`.

    A request never waits for a reload, and a reload that fails keeps the old catalogue and says why in `error`. `load`
    is told which share of the time it may work: all of it before there are requests, `RELOAD_SHARE` beside them;
    `count` is told "done" or "failed" of each reload.
    """

    def __init__(
        self,
        load: Callable[[float], Catalogue],
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        count: Callable[[str], None] = lambda outcome: None,
    ):
        self._load, self._ttl_seconds, self._clock, self._count = load, ttl_seconds, clock, count
        self._reloading = threading.Lock()
        self.error: str | None = None
        self._catalogue = load(1.0)
        self._read = clock()

    @property
    def age_seconds(self) -> float:
        """Since the catalogue was last read, or was last tried."""
        return self._clock() - self._read

    def get(self) -> Catalogue:
        """The catalogue now; one reference, so that a request sees one version throughout."""
        if self.age_seconds > self._ttl_seconds and self._reloading.acquire(blocking=False):
            threading.Thread(target=self._reload, name="item-snapshot", daemon=True).start()
        return self._catalogue

    def _reload(self) -> None:
        try:
            self._catalogue = self._load(RELOAD_SHARE)
            self.error = None
            self._count("done")
        except Exception as error:  # whatever the store raises, an old catalogue is better than none
            self.error = f"{type(error).__name__}: {error}"
            self._count("failed")
        finally:
            self._read = self._clock()
            self._reloading.release()
