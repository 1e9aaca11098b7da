"""Base rates of a log folder: what a reader should know before trusting a model of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from uniscale.logs import LogDescription


def base_rates(logs: Path, window_hours: float = 24.0) -> dict[str, float]:
    """Rates of logs in the contract, each in [0, 1] unless its name says otherwise.

    Keys: `ctr.<domain>` (clicked exposures), `clicks_per_search`, `reworded` (search requests within three minutes of
    the user's previous one), `conversion.<domain>` (purchases over clicks of the domain), and for clicks outside of
    the target domain the share that falls on an item the same user had in search within the window before:
    `cross.shown` (it was exposed), `cross.listed` (it was a candidate, shown or not), `cross.unlogged` (no request id).
    """
    description = LogDescription.load(logs)
    requests, exposures = _read(logs, "requests"), _read(logs, "exposures")
    events, candidates = _read(logs, "events"), _read(logs, "candidates")
    rates: dict[str, float] = {}
    clicks = events.filter(pc.field("type") == "click")
    shown = exposures.join(requests.select(["request_id", "domain", "user_id"]), "request_id")
    for domain in description.domains:
        logged = clicks.filter((pc.field("domain") == domain) & pc.field("request_id").is_valid())
        seen = shown.filter(pc.field("domain") == domain)
        rates[f"ctr.{domain}"] = logged.num_rows / max(seen.num_rows, 1)
        bought = events.filter((pc.field("type") == "purchase") & (pc.field("domain") == domain))
        total = clicks.filter(pc.field("domain") == domain).num_rows
        rates[f"conversion.{domain}"] = bought.num_rows / max(total, 1)
    target = requests.filter(pc.field("domain") == description.target)
    in_target = clicks.filter((pc.field("domain") == description.target) & pc.field("request_id").is_valid())
    rates["clicks_per_search"] = in_target.num_rows / max(target.num_rows, 1)
    rates["reworded"] = _reworded(target)
    elsewhere = clicks.filter(pc.field("domain") != description.target)
    rates["cross.unlogged"] = elsewhere["request_id"].null_count / max(elsewhere.num_rows, 1)
    asked = target.select(["request_id", "user_id", "ts"])
    on_page = exposures.select(["request_id", "item_id"]).join(asked, "request_id", join_type="inner")
    rates["cross.shown"] = _met_before(elsewhere, on_page, window_hours)
    parent = pc.list_parent_indices(candidates["item_ids"].combine_chunks())
    listed = pa.table(
        {
            "request_id": candidates["request_id"].combine_chunks().take(parent),
            "item_id": pc.list_flatten(candidates["item_ids"].combine_chunks()),
        }
    ).join(asked, "request_id", join_type="inner")
    rates["cross.listed"] = _met_before(elsewhere, listed, window_hours)
    return rates


def _read(logs: Path, table: str) -> pa.Table:
    return ds.dataset(Path(logs) / table, format="parquet", partitioning="hive").to_table()


def _met_before(clicks: pa.Table, met: pa.Table, hours: float) -> float:
    """Share of clicks whose (user, item) stands in `met` within the hours before the click."""
    met = met.select(["user_id", "item_id", "ts"]).rename_columns(["user_id", "item_id", "met"])
    pairs = clicks.select(["event_id", "user_id", "item_id", "ts"]).join(met, ["user_id", "item_id"], join_type="inner")
    wait = pc.subtract(pairs["ts"].cast(pa.int64()), pairs["met"].cast(pa.int64()))
    inside = pc.and_(pc.greater_equal(wait, 0), pc.less_equal(wait, int(hours * 3600e6)))
    return pc.count_distinct(pairs.filter(inside)["event_id"]).as_py() / max(clicks.num_rows, 1)


def _reworded(requests: pa.Table, minutes: float = 3.0) -> float:
    ordered = requests.select(["user_id", "ts"]).sort_by([("user_id", "ascending"), ("ts", "ascending")])
    user = ordered["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    wait = np.diff(ordered["ts"].cast(pa.int64()).to_numpy())
    return float(((np.diff(user) == 0) & (wait <= minutes * 60e6)).sum() / max(len(user), 1))
