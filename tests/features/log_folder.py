"""A small random log folder that keeps the contract of `uniscale.logs`: two domains, returning users, price changes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniscale.logs import TABLES, LogDescription

COLOURS, KINDS = ("red", "blue", "green"), ("shoe", "lamp", "chair", "cup")
FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)
DESCRIPTION = LogDescription(
    name="tiny",
    domains=("search", "recommendation"),
    scenarios=("keyword", "promotion", "home_feed"),
    tasks={"click": "click", "conversion": "purchase"},
    profile=("gender",),
    context=("device", "random"),
    item_categories=("colour",),
    item_numbers=("rating",),
    randomised_column="random",
)
EXTRA = {
    "users": [pa.field("gender", pa.string())],
    "requests": [pa.field("device", pa.string()), pa.field("random", pa.string())],
    "items": [pa.field("colour", pa.string()), pa.field("rating", pa.float64())],
}


@dataclass
class Logs:
    """Rows of every table as lists of dicts; change them, then `write`."""

    users: list[dict]
    items: list[dict]
    requests: list[dict]
    candidates: list[dict]
    exposures: list[dict]
    events: list[dict]
    description: LogDescription = DESCRIPTION

    def write(self, folder: Path) -> Path:
        """Write the folder; rows of day tables go to the day of their request (events: their own)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.description.save(folder)
        day_of = {row["request_id"]: row["ts"] for row in self.requests}
        for name in TABLES:
            rows = getattr(self, name)
            if not TABLES[name].by_day:
                pq.write_table(table(name, rows), folder / f"{name}.parquet")
                continue
            days: dict[str, list[dict]] = {}
            for row in rows:
                ts = row["ts"] if name in ("requests", "events") else day_of.get(row["request_id"], FIRST_DAY)
                days.setdefault(f"{ts:%Y-%m-%d}", []).append(row)
            for day, part in days.items():
                (folder / name / f"day={day}").mkdir(parents=True, exist_ok=True)
                pq.write_table(table(name, part), folder / name / f"day={day}" / "part-0.parquet")
        return folder


def schema(name: str) -> pa.Schema:
    """Arrow schema of a table of these logs, extra columns included."""
    return pa.schema([*(pa.field(column.name, column.type) for column in TABLES[name].columns), *EXTRA.get(name, [])])


def table(name: str, rows: list[dict]) -> pa.Table:
    """Rows as an Arrow table; a missing key is null."""
    return pa.Table.from_pylist(rows, schema(name))


def random_logs(
    seed: int = 0, users: int = 20, items: int = 30, days: int = 14, requests: int = 300, exposed: int = 5
) -> Logs:
    """Random logs: a request shows `exposed` of twelve candidates, about a third of them clicked, some bought later."""
    rng = np.random.default_rng(seed)
    item_rows = []
    for item in range(items):
        versions = [FIRST_DAY - timedelta(days=3)]
        versions += [FIRST_DAY + timedelta(hours=float(h)) for h in sorted(rng.uniform(0, 24 * days, size=item % 3))]
        embedding = rng.normal(size=4).astype(np.float32)
        for version in versions:
            item_rows.append(
                {
                    "item_id": f"i{item}",
                    "valid_from": version,
                    "title": f"{COLOURS[item % 3]} {KINDS[item % 4]} {item}",
                    "category": ["home", f"kind {item % 4}", f"sort {item % 8}"][: 1 + item % 3],
                    "brand": f"b{item % 5}" if item % 7 else None,
                    "price": float(np.round(rng.uniform(1, 100), 2)),
                    "seller": f"s{item % 3}",
                    "embedding": embedding.tolist(),
                    "colour": COLOURS[item % 3],
                    "rating": float(rng.uniform(0, 5)) if item % 4 else None,
                }
            )
    request_rows, candidate_rows, exposure_rows, event_rows = [], [], [], []
    for number in range(requests):
        ts = FIRST_DAY + timedelta(microseconds=int(rng.integers(0, days * 86_400_000_000 - 3_600_000_000)))
        search = bool(rng.random() < 0.7)
        request, user = f"r{number}", f"u{rng.integers(0, users)}"
        request_rows.append(
            {
                "request_id": request,
                "domain": "search" if search else "recommendation",
                "scenario": list(rng.permutation(["keyword", "promotion"])[: rng.integers(1, 3)])
                if search
                else ["home_feed"],
                "user_id": user,
                "ts": ts,
                "query": ["red shoe", "lamp", "blue chair", "cup"][rng.integers(0, 4)] if search else None,
                "device": ["phone", "desktop"][rng.integers(0, 2)],
                "random": str(int(rng.random() < 0.1)),
            }
        )
        candidates = [f"i{item}" for item in rng.choice(items, size=12, replace=False)]
        if search:
            scores = np.sort(rng.random(12))[::-1].astype(np.float32).tolist()
            candidate_rows.append({"request_id": request, "item_ids": candidates, "scores": scores})
        for position, item in enumerate(candidates[:exposed], 1):
            exposure_rows.append({"request_id": request, "item_id": item, "position": position, "ts": ts})
            if rng.random() < 0.35:
                clicked = ts + timedelta(seconds=int(rng.integers(1, 600)))
                event_rows.append(_event(f"e{number}-{position}", request_rows[-1], item, clicked, "click"))
                if rng.random() < 0.3:
                    bought = clicked + timedelta(minutes=int(rng.integers(1, 40)))
                    event_rows.append(_event(f"p{number}-{position}", request_rows[-1], item, bought, "purchase", 9.5))
    user_rows = [
        {"user_id": f"u{user}", "registered_at": FIRST_DAY - timedelta(days=9), "gender": "fm"[user % 2]}
        for user in range(users)
    ]
    return Logs(user_rows, item_rows, request_rows, candidate_rows, exposure_rows, event_rows)


def _event(name, request, item, ts, kind, amount=None):
    return {
        "event_id": name,
        "user_id": request["user_id"],
        "item_id": item,
        "ts": ts,
        "domain": request["domain"],
        "type": kind,
        "request_id": request["request_id"],
        "amount": amount,
    }
