"""A random samples folder that keeps the contract of `uniscale.samples`, with a signal a model can learn."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniscale.artifacts import write_json
from uniscale.hashing import hash_many
from uniscale.samples import Feature, LabelSource, QueryRule, SampleSpec, Sampling

FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)
SPEC = SampleSpec(
    features=(
        Feature("user_id_hash", "user", "id", "request", "user"),
        Feature("user_gender", "user", "id", "request", "gender"),
        Feature("user_clicks_7d", "user", "count", "request"),
        Feature("query_hash", "query", "id", "request", "query"),
        Feature("query_clicks_7d", "query", "count", "request"),
        Feature("context_device", "context", "id", "request", "device"),
        Feature("item_hash", "item", "id", "candidate", "item"),
        Feature("item_category_1", "item", "id", "candidate", "category"),
        Feature("item_brand", "item", "id", "candidate", "brand"),
        Feature("item_price", "item", "count", "candidate"),
        Feature("item_clicks_7d", "item", "count", "candidate"),
        Feature("behaviour_item", "behaviour", "id", "behaviour", "item"),
        Feature("behaviour_category_1", "behaviour", "id", "behaviour", "category"),
        Feature("behaviour_brand", "behaviour", "id", "behaviour", "brand"),
        Feature("behaviour_type", "behaviour", "id", "behaviour", "behaviour_type"),
    ),
    domains=("search", "recommendation", "ads"),
    scenarios=("keyword", "category", "promotion", "home_feed"),
    tasks=("click", "conversion"),
    content_dim=8,
    text_dim=6,
    max_behaviours=10,
)


def write_samples(folder: Path, seed: int = 0, requests_per_day: int = 30, days: int = 8, items: int = 60) -> Path:
    """Days 0..n-4 train, then one of validation and two of test; search requests and searchified ones."""
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    content = rng.normal(size=(items + 1, SPEC.content_dim)).astype(np.float32)
    text = rng.normal(size=(items + 1, SPEC.text_dim)).astype(np.float32)
    content[0] = text[0] = 0.0
    appeal = rng.normal(size=items + 1)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table(
            {
                "index": pa.array(np.arange(1, items + 1), pa.int32()),
                "item_id": [f"i{index}" for index in range(1, items + 1)],
                "content": pa.array(list(content[1:]), pa.list_(pa.float32())),
                "text": pa.array(list(text[1:]), pa.list_(pa.float32())),
            }
        ),
        folder / "items.parquet",
    )
    for day in range(days):
        date = FIRST_DAY + timedelta(days=day)
        for domain in range(len(SPEC.domains)):
            count = requests_per_day if domain == 0 else requests_per_day // 3
            rows = [_row(rng, day, domain, number, date, items, appeal, text) for number in range(count)]
            part = folder / "rows" / f"day={date:%Y-%m-%d}" / f"domain={SPEC.domains[domain]}"
            part.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, _schema()), part / "part-0.parquet")

    def iso(day: int) -> str:
        return f"{FIRST_DAY + timedelta(days=day):%Y-%m-%d}"

    SPEC.save(folder)
    splits = {"train": [iso(0), iso(days - 4)], "valid": [iso(days - 3)] * 2, "test": [iso(days - 2), iso(days - 1)]}
    write_json(folder / "manifest.json", {"splits": splits, "seed": seed, "table1": [], "skipped": []})
    return folder


def _row(rng, day, domain, number, date, items, appeal, text):
    exposed = int(rng.integers(4, 8))
    unexposed = 2 * exposed if domain == 0 else 0
    candidates = rng.choice(np.arange(1, items + 1), size=exposed + unexposed, replace=False)
    user, query = int(rng.integers(0, 20)), int(rng.integers(0, 10))
    behaviours = rng.integers(1, items + 1, size=int(rng.integers(0, SPEC.max_behaviours + 1)))
    probability = 1 / (1 + np.exp(2.0 - 1.5 * appeal[candidates]))
    click = (rng.random(len(candidates)) < probability).astype(int)
    conversion = click * (rng.random(len(candidates)) < 0.3)
    shown = np.arange(len(candidates)) < exposed
    source = np.where(shown, LabelSource.IN_DOMAIN, LabelSource.UNEXPOSED)
    sampling = np.where(shown, Sampling.EXPOSED, Sampling.UNEXPOSED)
    if domain:
        click = np.eye(1, len(candidates), dtype=int)[0]
        conversion = click * 0
        source = np.full(len(candidates), LabelSource.PSEUDO)
        sampling = np.where(click == 1, Sampling.PSEUDO_POSITIVE, Sampling.PSEUDO_NEGATIVE)

    def hashes(prefix, values):
        return hash_many(f"{prefix}{value}" for value in values).tolist()

    ts = date + timedelta(seconds=int(rng.integers(0, 86400)))
    return {
        "request_id": f"r{day}-{domain}-{number}",
        "user_id": f"u{user}",
        "query": f"q{query}",
        "ts": ts,
        "domain_index": domain,
        "scenarios": [int(rng.integers(0, 3))] if domain == 0 else [3],
        "query_rule": int(QueryRule.TYPED if domain == 0 else QueryRule.CO_OCCURRENCE),
        "query_text": text[1 + query].tolist(),
        "user_id_hash": hashes("u", [user])[0],
        "user_gender": hashes("g", [user % 2])[0],
        "user_clicks_7d": float(rng.poisson(3)),
        "query_hash": hashes("q", [query])[0],
        "query_clicks_7d": float(rng.poisson(9)) if number % 5 else None,
        "context_device": hashes("d", [number % 2])[0],
        "item": candidates.tolist(),
        "sampling": sampling.tolist(),
        "position": np.where(shown, np.arange(1, len(candidates) + 1), 0).tolist(),
        "item_hash": hashes("i", candidates),
        "item_category_1": hashes("c", candidates % 7),
        "item_brand": hashes("b", candidates % 11),
        "item_price": (5.0 + candidates % 50).astype(float).tolist(),
        "item_clicks_7d": rng.poisson(np.exp(appeal[candidates])).astype(float).tolist(),
        "behaviour_index": behaviours.tolist(),
        "behaviour_ts": sorted(int(ts.timestamp()) - int(back) for back in rng.integers(1, 10**6, len(behaviours))),
        "behaviour_item": hashes("i", behaviours),
        "behaviour_category_1": hashes("c", behaviours % 7),
        "behaviour_brand": hashes("b", behaviours % 11),
        "behaviour_type": hashes("t", behaviours % 3),
        "click": click.tolist(),
        "click_source": np.where(click == 1, source, LabelSource.NONE).tolist(),
        "conversion": conversion.astype(int).tolist(),
        "conversion_source": np.where(conversion == 1, source, LabelSource.NONE).tolist(),
    }


def _schema() -> pa.Schema:
    from uniscale.samples import row_schema

    return row_schema(SPEC)
