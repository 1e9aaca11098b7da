"""The report of a load as one small HTML file: a table, latency by percentile, by rate and by second."""

from collections.abc import Sequence
from html import escape

from models.curves import chart
from serving.load import Load

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8886; white-space: nowrap; }
svg { width: 100%; height: auto; overflow: visible; } text { fill: currentColor; font-size: 12px; }
"""


def page(loads: Sequence[Load], knee: float | None, p99_ms: float, candidates: int) -> str:
    """HTML without a script or anything to fetch."""
    loads = sorted(loads, key=lambda one: one.rate)
    verdict = f"{knee:g} requests a second" if knee is not None else "not found"
    measured = [(one.rate, one.latency_ms) for one in loads if one.latency_ms]
    charts = [("by percentile", "percentile", {f"{one.rate:g}/s": one.curve for one in loads if one.curve})]
    if len(measured) > 1:
        by_rate = {name: [(rate, ms[name]) for rate, ms in measured] for name in ("p50", "p95", "p99")}
        charts.append(("by rate", "requests a second", by_rate))
    for one in loads:
        slowest, median = ([(float(each[0]), each[place]) for each in one.by_second] for place in (2, 1))
        charts.append((f"by second, at {one.rate:g}/s", "second", {"slowest": slowest, "median": median}))
    drawn = "".join(f"<h2>Latency (ms) {of}</h2>{chart(series, label, lowest=0.0)}" for of, label, series in charts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Load</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<h1>Load</h1><p>{candidates} candidates a request; Poisson arrivals; latency from the intended send time. "
        f"Highest rate with p99 within {p99_ms:g} ms, no error and no fallback: {verdict}.</p>"
        f"{_table(loads)}{drawn}</html>\n"
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
