"""From the log of a live service alone: a skew planted in its store is found and named, equal features are none."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import raw_column
from features.context import context_columns
from features.on_demand import user_moments
from features.store.repository import open_online
from features.store.retrieval import item_day_features, query_day_features, request_features
from monitoring.skew import feature_skew, skewed
from serving.deploy import store_of
from tests.serving.live import ASKED, serve
from uniscale.artifacts import read_json
from uniscale.hashing import hash_many
from uniscale.logs import TIMESTAMP
from uniscale.samples import SampleSpec, row_schema
from uniscale.serving_log import INPUTS

pytestmark = pytest.mark.xdist_group("service")

USERS = [f"u{number}" for number in range(20)]
ITEMS = [f"i{item}" for item in range(12)]
ASK = {"query": "red shoe", "scenario": ["keyword"], "context": {"device": "phone"}, "item_ids": ITEMS}


def offline(features, out, request_ids):
    """The samples folder of one request a user, from point-in-time features of the instant that the store holds."""
    spec, report = SampleSpec.load(features), read_json(features / "report.json")

    def keys(name, values, instant="as_of"):
        ts = pa.repeat(pa.scalar(report[instant]).cast(TIMESTAMP), len(values))
        return pa.table({"row_id": np.arange(len(values)), name: values, "ts": ts})

    of_user = request_features(features, keys("user_id", USERS)).to_pylist()
    (of_query,) = query_day_features(features, keys("query", [ASK["query"]])).to_pylist()
    attributes = item_day_features(features, keys("item_id", ITEMS, "attributes_as_of")).to_pylist()
    statistics = item_day_features(features, keys("item_id", ITEMS)).to_pylist()
    of_item = [
        old | {name: new[name] for name in new if name.endswith("d") and name[-2].isdigit()} | {"item_id": item}
        for item, old, new in zip(ITEMS, attributes, statistics, strict=True)
    ]
    context = context_columns(pa.array([ASKED], TIMESTAMP), [ASK["scenario"]])
    context = {name: column[0].as_py() for name, column in context.items()} | {"context_device": "phone"}
    index = dict(pq.read_table(features / "items.parquet", columns=["item_id", "index"]).to_pandas().values)

    def value(feature, row):
        found = row.get(raw_column(feature))
        if feature.level == "behaviour":
            return hash_many(one or None for one in found or []).tolist()
        return hash_many([found])[0].item() if feature.kind == "id" else found

    rows = []
    for request_id, user, known in zip(request_ids, USERS, of_user, strict=True):
        moments = user_moments([known["behaviour_ts"]], np.array([ASKED.timestamp()]))
        asked = known | {name: values[0] for name, values in moments.items()} | of_query | context
        asked |= {"user_id": user, "query": ASK["query"]}
        row = dict.fromkeys(row_schema(spec).names)
        row |= {"request_id": request_id, "user_id": user, "ts": ASKED, "item": [index[item] for item in ITEMS]}
        row |= {"behaviour_ts": known["behaviour_ts"]}
        for feature in spec.features:
            per_item = feature.level == "candidate"
            row[feature.name] = [value(feature, item) for item in of_item] if per_item else value(feature, asked)
        rows.append(row)
    path = out / "rows" / f"day={ASKED:%Y-%m-%d}" / f"domain={spec.domains[0]}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, row_schema(spec)), path)
    pq.write_table(pq.read_table(features / "items.parquet"), out / "items.parquet")
    spec.save(out)
    return out


def test_a_skew_planted_in_the_store_is_named_from_the_log_alone(packaged, tmp_path):
    """The wrong statistic goes the whole way: store, service, log of inputs, comparison with the samples."""
    features = packaged[1] / "features"
    with serve(packaged, tmp_path / "service") as live:
        before = [live.rank(user_id=user, **ASK)["request_id"] for user in USERS]
        table = pq.read_table(features / "tables" / "user_statistics.parquet").to_pandas()
        table = table[table["ts"] <= read_json(features / "report.json")["as_of"]]
        newest = table.sort_values("ts").groupby("user_id", as_index=False).last()
        wrong = newest.assign(user_clicks_7d=newest["user_clicks_7d"] + 1).astype({"user_clicks_7d": "float32"})
        open_online(store_of(live.log)).write_to_online_store("user_statistics", wrong)
        after = [live.rank(user_id=user, **ASK)["request_id"] for user in USERS]
    logged = pq.read_table(live.log / INPUTS, partitioning=None).to_pylist()
    assert sorted(row["request_id"] for row in logged) == sorted(before + after)
    assert all(sorted(row["item_ids"]) == sorted(ITEMS) for row in logged)
    quiet = feature_skew(live.log, offline(features, tmp_path / "quiet", before), 0.0)
    assert (quiet["requests"], quiet["items"]) == (20, 240) and skewed(quiet) == []
    loud = feature_skew(live.log, offline(features, tmp_path / "loud", after), 0.0)
    (named,) = skewed(loud)
    assert named.startswith("user_clicks_7d: differs in ")
