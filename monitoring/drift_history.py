"""The history of drift: one JSON file a comparison, kept for good, and a page with a line a measure."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from uniscale.artifacts import read_json, write_json

WIDTH, HEIGHT, LEFT = 640, 120, 84  # of a chart; left of LEFT are its labels
SHOWN = 5  # of what a comparison noticed; the rest is folded


def keep(result: Mapping[str, Any], folder: Path) -> Path:
    """Add a drift result to the history; the same day's comparison again replaces it.

    Args:
        result: what drift.json holds.
        folder: the history; `history.html` in it shows all of it.
    """
    day = result["windows"]["current"][1]
    kept = {key: result[key] for key in ("windows", "verdict", "reason", "drifted", "late_labels", "measures")}
    write_json(Path(folder) / f"{day}.json", kept)
    entries = history(folder)
    (Path(folder) / "history.html").write_text(page(entries))
    return Path(folder) / "history.html"


def history(folder: Path) -> list[dict[str, Any]]:
    """Every kept comparison, oldest first."""
    return [read_json(file) for file in sorted(Path(folder).glob("*.json"))]


def page(entries: Sequence[Mapping[str, Any]]) -> str:
    """One self-contained HTML document: a chart a measure, then what was noticed each time."""
    style = resources.files("monitoring").joinpath("page.css").read_text()
    names = sorted({name for entry in entries for name in entry["measures"]})
    until = [entry["windows"]["current"][1] for entry in entries]
    lines = {name: [entry["measures"].get(name) for entry in entries] for name in names}
    charts = "".join(
        f"<h2>{escape(name)}</h2>{_chart(name, list(zip(until, values, strict=True)))}"
        for name, values in lines.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/><title>Drift history</title>'
        f"<style>{style}</style></head><body><main><h1>Drift, {len(entries)} comparisons</h1>{charts}"
        f"<h2>What was noticed</h2>{''.join(map(_noticed, reversed(entries)))}</main></body></html>\n"
    )


def folded(lines: Sequence[str], shown: int) -> str:
    """A list of texts as HTML, of which those after the first `shown` open at a click."""
    items = [f"<li>{escape(line)}</li>" for line in lines]
    first, rest = "".join(items[:shown]), "".join(items[shown:])
    more = f"<details><summary>{len(items) - shown} more</summary><ul>{rest}</ul></details>" if rest else ""
    return f"<ul>{first}</ul>{more}"


def _noticed(entry: Mapping[str, Any]) -> str:
    until = escape(entry["windows"]["current"][1])
    return f"<h3>Until {until}: {escape(entry['verdict'])}</h3>{folded(entry['drifted'] or ['nothing'], SHOWN)}"


def _chart(name: str, points: Sequence[tuple[str, float | None]]) -> str:
    known = [(number, day, value) for number, (day, value) in enumerate(points) if value is not None]
    top = max((value for _, _, value in known), default=0.0) or 1.0
    step = (WIDTH - LEFT - 20) / max(len(points) - 1, 1)
    places = [(LEFT + step * n, HEIGHT - 24 - (HEIGHT - 40) * value / top) for n, _, value in known]
    trail = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places)
    ends = f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape(points[0][0])}</text>' if points else ""
    if len(points) > 1:
        ends += f'<text x="{WIDTH - 20}" y="{HEIGHT - 6}" text-anchor="end">{escape(points[-1][0])}</text>'
    said = escape(f"{name}: {', '.join(f'{day} {value:.3g}' for _, day, value in known)}", quote=True)
    return (
        f'<svg class="days" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">'
        f'<text x="{LEFT - 8}" y="20" text-anchor="end">{top:.3g}</text>'
        f'<text x="{LEFT - 8}" y="{HEIGHT - 24}" text-anchor="end">0</text>'
        f'<polyline class="trail" points="{trail}"/>{dots}{ends}</svg>'
    )
