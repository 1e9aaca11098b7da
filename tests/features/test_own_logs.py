"""The template of docs/your-own-logs.md runs on a shop's CSV files, and what it writes passes the contract."""

import csv
import runpy
from pathlib import Path

from features.ingest import ingest
from uniscale.artifacts import read_json
from uniscale.config import load_config
from uniscale.logs import LogDescription

TEMPLATE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own_logs.py"
EXPORTS = {
    "customers": (("customer", "joined", "country"), [("ann", "2026-01-01 08:00:00", "FI")]),
    "products": (
        ("product", "since", "title", "category", "brand", "price", "stars"),
        [
            ("p1", "2026-01-01 00:00:00", "red mug", "kitchen/mugs", "Clay", 8.5, 4),
            ("p2", "2026-01-01 00:00:00", "blue mug", "kitchen/mugs", "Clay", 9.0, 5),
        ],
    ),
    "searches": (
        ("search", "surface", "platform", "customer", "time", "words", "device"),
        [
            ("s1", "search", "app", "ann", "2026-01-02 10:00:00", "mug", "phone"),
            ("s2", "feed", "web", "ann", "2026-01-03 10:00:00", "", "desktop"),
        ],
    ),
    "shown": (("search", "product", "place"), [("s1", "p1", 1), ("s1", "p2", 2), ("s2", "p2", 1)]),
    "actions": (
        ("action", "customer", "product", "time", "surface", "kind", "search", "amount"),
        [
            ("a1", "ann", "p2", "2026-01-02 10:01:00", "search", "click", "s1", ""),
            ("a2", "ann", "p2", "2026-01-03 10:05:00", "feed", "purchase", "", 9.0),
        ],
    ),
}


def test_the_template_writes_logs_that_lose_no_row_in_ingest(tmp_path):
    exports = tmp_path / "exports"
    exports.mkdir()
    for name, (head, rows) in EXPORTS.items():
        with (exports / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    written = runpy.run_path(str(TEMPLATE))["convert"](exports, tmp_path / "logs")
    assert written == {"users": 1, "items": 2, "requests": 2, "exposures": 3, "events": 2}
    assert LogDescription.load(tmp_path / "logs").target == "search"

    ingest(load_config().ingest, tmp_path / "logs", tmp_path / "clean")
    tables = read_json(tmp_path / "clean" / "report.json")["tables"]
    assert {name: (table["rows_out"], table["quarantined"]) for name, table in tables.items()} == {
        "users": (1, 0),
        "items": (2, 0),
        "requests": (2, 0),
        "exposures": (3, 0),
        "events": (2, 0),
    }
