"""Learning curves as one small self-contained HTML page of inline SVG (no script, no network)."""

from collections.abc import Sequence
from html import escape
from itertools import cycle

WIDTH, HEIGHT, MARGIN = 640, 260, 48
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8a3fb0", "#b03060", "#007a7a", "#777")
DOTS = 50  # points of a line from which they are no longer marked

Series = dict[str, list[tuple[float, float]]]  # name -> points (x, y)


def page(title: str, charts: Sequence[tuple[str, str, Series]], more: str = "") -> str:
    """An HTML page of line charts, each given as (heading, x label, series), and more HTML below them."""
    drawn = "\n".join(f"<h2>{escape(heading)}</h2>\n{chart(series, label)}" for heading, label, series in charts)
    style = (
        ":root{color-scheme:light dark}body{font:15px system-ui;max-width:700px;margin:2em auto;padding:0 1em}"
        "svg{overflow:visible}text{font:11px system-ui;fill:currentColor;opacity:.75}"
        "@media(max-width:500px){text{font-size:14px}}"
    )
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,'
        f'initial-scale=1"><title>{escape(title)}</title><style>{style}</style>'
    )
    return f"{head}<h1>{escape(title)}</h1>\n{drawn}\n{more}\n"


def chart(series: Series, x_label: str, lowest: float | None = None) -> str:
    """One SVG line chart and its legend; a series of one point is a dot; y begins at `lowest`, its least if None."""
    points = [point for line in series.values() for point in line]
    if not points:
        return "<p>no points</p>"
    (left, right), (low, high) = (_range([p[axis] for p in points]) for axis in (0, 1))
    low = low if lowest is None else lowest

    def place(x: float, y: float) -> tuple[float, float]:
        across = MARGIN + (x - left) / (right - left) * (WIDTH - 2 * MARGIN)
        return round(across, 1), round(HEIGHT - MARGIN - (y - low) / (high - low) * (HEIGHT - 2 * MARGIN), 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for share in (0.0, 0.5, 1.0):
        x, y = left + share * (right - left), low + share * (high - low)
        across, up = place(x, y)
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{up}" y2="{up}" stroke="#8886"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{up + 4}" text-anchor="end">{y:.4g}</text>')
        parts.append(f'<text x="{across}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{x:.6g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>')
    for line, colour in zip(series.values(), cycle(COLOURS), strict=False):
        placed = [place(x, y) for x, y in line]
        path = " ".join(f"{x},{y}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(placed) < DOTS:
            parts += [f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>' for x, y in placed]
    colours = zip(series, cycle(COLOURS), strict=False)
    legend = " · ".join(f'<span style="color:{colour}">{escape(name)}</span>' for name, colour in colours)
    return "".join([*parts, f"</svg><p>{legend}</p>"])


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
