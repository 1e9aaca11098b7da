"""The report of a load as one small HTML file: a table, latency by percentile, and latency by rate."""

from collections.abc import Sequence
from html import escape

from serving.load import Load

WIDTH, HEIGHT, MARGIN = 640, 260, 48
COLOURS = ("#2a6fdb", "#c2571a", "#2c8a4b", "#8a3fb0", "#b03060", "#6b6b00", "#007a7a", "#555")
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8886; white-space: nowrap; }
svg { width: 100%; height: auto; } text { fill: currentColor; font-size: 12px; }
"""
Line = tuple[str, list[tuple[float, float]]]


def page(loads: Sequence[Load], knee: float | None, p99_ms: float, candidates: int) -> str:
    """HTML without a script or anything to fetch."""
    loads = sorted(loads, key=lambda one: one.rate)
    verdict = f"{knee:g} requests a second" if knee is not None else "not found"
    curves: list[Line] = [(f"{one.rate:g}/s", one.curve) for one in loads if one.curve][: len(COLOURS)]
    measured = [(one.rate, one.latency_ms) for one in loads if one.latency_ms]
    by_rate: list[Line] = [(name, [(rate, ms[name]) for rate, ms in measured]) for name in ("p50", "p95", "p99")]
    charts = chart("Latency (ms) by percentile", curves)
    if len(measured) > 1:
        charts += chart("Latency (ms) by rate (requests a second)", by_rate)
    for one in loads:
        slowest: Line = ("slowest", [(second, most) for second, _, most in one.by_second])
        median: Line = ("median", [(second, middle) for second, middle, _ in one.by_second])
        charts += chart(f"Latency (ms) by second, at {one.rate:g}/s", [slowest, median])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Load</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<h1>Load</h1><p>{candidates} candidates a request; Poisson arrivals; latency from the intended send time. "
        f"Highest rate with p99 within {p99_ms:g} ms, no error and no fallback: {verdict}.</p>"
        f"{_table(loads)}{charts}</html>\n"
    )


def _table(loads: Sequence[Load]) -> str:
    names = ("p50", "p95", "p99", "p99.9")
    head = "".join(
        f"<th>{name}</th>" for name in ("rate", "achieved", *names, "errors", "fallbacks", "taken by the host")
    )
    rows = ""
    for one in loads:
        latency = one.latency_ms or {}
        cells = [f"{one.rate:g}", f"{one.achieved_rate:.1f}", *(f"{latency[n]:.1f}" if latency else "–" for n in names)]
        cells += [
            ", ".join(f"{count} × {name}" for name, count in kinds.items()) or "0"
            for kinds in (one.errors, one.fallbacks)
        ]
        cells.append("–" if one.stolen is None else f"{one.stolen:.1%}")
        rows += "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    return f"<table><tr>{head}</tr>{rows}</table>"


def chart(title: str, lines: Sequence[Line]) -> str:
    """Lines over common axes from 0 (y) and from the smallest x, as a heading and an inline SVG; "" without a point."""
    points = [point for _, line in lines for point in line]
    if not points:
        return ""
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top = max(y for _, y in points) or 1.0

    def place(x: float, y: float) -> str:
        across = (x - left) / ((right - left) or 1.0)
        return f"{MARGIN + across * (WIDTH - 2 * MARGIN):.1f},{HEIGHT - MARGIN - y / top * (HEIGHT - 2 * MARGIN):.1f}"

    drawn = ""
    for colour, (name, line) in zip(COLOURS, lines, strict=False):
        path = " ".join(place(x, y) for x, y in line)
        drawn += (
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"><title>{name}</title></polyline>'
        )
    legend = "".join(
        f'<text x="{MARGIN + 78 * number}" y="14" style="fill:{colour}">{escape(name)}</text>'
        for number, (colour, (name, _)) in enumerate(zip(COLOURS, lines, strict=False))
    )
    ticks = "".join(
        f'<text x="{MARGIN - 6}" y="{HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN) + 4:.1f}" text-anchor="end">'
        f"{share * top:.3g}</text>"
        for share in (0.0, 0.5, 1.0)
    ) + "".join(
        f'<text x="{MARGIN + share * (WIDTH - 2 * MARGIN):.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">'
        f"{left + share * (right - left):.3g}</text>"
        for share in (0.0, 0.5, 1.0)
    )
    return f'<h2>{title}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{legend}{ticks}{drawn}</svg>'
