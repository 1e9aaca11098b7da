"""The gate's decision as one self-contained page: what moved, by how much, how certain, and on which slices."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from uniscale.cards import CARDS, labelled

ORDER = {"fail": 0, "pass": 1, "reported": 2, "not_applicable": 3}
WORDS = {"fail": "failed", "pass": "passed", "reported": "shown only", "not_applicable": "not applicable"}
JUDGED = ("pass", "fail")
WIDTH, HEIGHT = 200, 18  # of an interval's drawing, in CSS pixels

STYLE = (
    """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6670; --line: #d9dee3; --paper: #fff; --panel: #f5f7f9;
  --good: #12743b; --bad: #b3261e; --calm: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; --line: #333a42; --paper: #14181c;
  --panel: #1c2126; --good: #58c783; --bad: #ff8a80; --calm: #9aa4ae; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); } .wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); } th, td { padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } td.n, th.n { text-align: right; }
.fail, .worse { color: var(--bad); } .pass, .better { color: var(--good); } .reported, .not_applicable, .unclear
  { color: var(--calm); } td.fail, td.pass { font-weight: 600; }
header { border-left: 6px solid; padding: .2rem 0 .2rem 1rem; } header p { color: var(--ink); margin: 0; }
svg { display: block; } svg .zero { stroke: var(--soft); stroke-dasharray: 2 2; } svg .margin { stroke: var(--bad); }
svg .bar { stroke: currentColor; stroke-width: 3; } svg .dot { fill: currentColor; }
code { background: var(--panel); padding: 0 .3em; border-radius: 3px; }
@media (min-width: 48rem) { td.fail, td.pass { white-space: nowrap; } }
"""
    + CARDS
)


def render(decision: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """HTML of a decision (`decision.json`) and the evaluation it was made from (`measures.json`)."""
    promoted = decision["verdict"] == "promote"
    title = "Promote" if promoted else "Reject"
    sections = [
        _header(decision, title, promoted),
        _gates(decision["gates"]),
        _moved(decision, evaluation["measures"]),
        _slices(decision["gates"], evaluation["slices"]),
        _other(evaluation["measures"]),
        _unavailable(evaluation["reasons"]),
        _reading(decision, evaluation),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{title}: {escape(_model(decision['candidate']))}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _header(decision: Mapping[str, Any], title: str, promoted: bool) -> str:
    gates = decision["gates"]
    judged = sum(gate["verdict"] in JUDGED for gate in gates)
    if promoted:
        why = f"All {judged} rules that apply are met."
    else:
        names = ", ".join(f"<code>{escape(name)}</code>" for name in decision["failed"])
        why = f"{len(decision['failed'])} of {judged} rules failed: {names}."
    against = f"against {_model(decision['champion'])}" if decision["champion"] else "as a first model, no champion"
    return (
        f'<header class="{"pass" if promoted else "fail"}"><h1>{title}</h1>'
        f"<p>{escape(_model(decision['candidate']))} {escape(against)}</p><p>{why}</p></header>"
    )


def _gates(gates: Sequence[Mapping[str, Any]]) -> str:
    own_table = [gate for gate in gates if _is_slice(gate) and gate["verdict"] in ("pass", "reported")]
    ordered = sorted((gate for gate in gates if gate not in own_table), key=lambda gate: ORDER[gate["verdict"]])
    rows = (
        f'<tr><td class="{gate["verdict"]}">{WORDS[gate["verdict"]]}</td><td><code>{escape(gate["name"])}</code></td>'
        f"<td>{escape(gate['rule'])}</td><td>{escape(gate['why'])}</td></tr>"
        for gate in ordered
    )
    return _section("Rules", ("verdict", "rule", "what it asks", "why"), rows)


def _moved(decision: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    differences = {key.removeprefix("difference."): v for key, v in measures.items() if key.startswith("difference.")}
    if not differences:
        names = [name for name in measures if _is_metric(name)]
        rows = (f"<tr><td>{escape(name)}</td>{_cells(measures[name])}</tr>" for name in names)
        return _section("Measures", ("measure", "#candidate"), rows)
    margins = {
        gate["measure"]: gate["numbers"].get("bound")
        for gate in decision["gates"]
        if gate["name"].startswith("non_inferiority:")
    }
    tasks = {name: name.rpartition(".")[0] for name in differences}
    scales = {task: scale_of(differences[name] for name in tasks if tasks[name] == task) for task in tasks.values()}
    rows = (
        f"<tr><td>{escape(name)}{' (primary)' if name == decision['primary'] else ''}</td>"
        f"{_cells(measures.get(name), measures.get(f'champion.{name}'))}"
        f"{difference_cells(difference, scales[tasks[name]], margins.get(name))}</tr>"
        for name, difference in differences.items()
    )
    head = ("measure", "#candidate", "#champion", "#difference", "#interval", "")
    return _section("What moved, and how certain that is", head, rows)


def _slices(gates: Sequence[Mapping[str, Any]], slices: Sequence[Mapping[str, Any]]) -> str:
    if not slices:
        return ""
    verdicts = {gate["name"]: gate for gate in gates if _is_slice(gate)}

    def row_of(row: Mapping[str, Any]) -> str:
        gate = verdicts.get(f"slice:{row['by']}={row['slice']}", {"verdict": "not_applicable", "why": "not judged"})
        return (
            f"<tr><td>{escape(row['by'])}</td><td>{escape(str(row['slice']))}</td>"
            f'<td class="n">{row["rows"]:,}</td><td class="n">{row["positives"]:,}</td>'
            f"{_cells(row.get('candidate'), row.get('champion'))}{difference_cells(row.get('difference'), scale)}"
            f'<td class="{gate["verdict"]}" title="{escape(gate["why"])}">{WORDS[gate["verdict"]]}</td></tr>'
        )

    judged = [row for row in slices if verdicts.get(f"slice:{row['by']}={row['slice']}", {}).get("verdict") in JUDGED]
    scale = scale_of(row.get("difference") for row in judged or slices)
    rules = {gate["rule"] for gate in verdicts.values()}
    asked = "".join(f'<p class="soft">{escape(rule)}</p>' for rule in sorted(rules))
    head = ("by", "slice", "#rows", "#positives", "#candidate", "#champion", "#difference", "#interval", "", "verdict")
    return _section(f"Slices ({slices[0]['measure']})", head, map(row_of, slices), asked)


def _other(measures: Mapping[str, Any]) -> str:
    shown = [
        name
        for name, value in measures.items()
        if not name.startswith(("difference.", "champion.")) and not isinstance(value, Mapping)
    ]
    rows = (
        f"<tr><td>{escape(name)}</td>{_cells(measures[name], measures.get(f'champion.{name}', ''))}</tr>"
        for name in shown
    )
    return _section("All measures", ("measure", "#candidate", "#champion"), rows)


def _unavailable(reasons: Mapping[str, str]) -> str:
    rows = (f"<tr><td>{escape(name)}</td><td>{escape(why)}</td></tr>" for name, why in reasons.items())
    return _section("Not computed", ("measure", "why"), rows) if reasons else ""


def _reading(decision: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    confidence = f"{decision['confidence']:.0%}"
    lines = [
        "Both models score the same rows: the target domain's exposed candidates of the test days, with labels that "
        "happened in that domain. Measures named <code>attributed</code> also count labels from other domains.",
        f"Intervals are {confidence} percentile intervals of a paired bootstrap over users "
        f"({evaluation.get('resamples', 0):,} resamples): both models are judged on the same drawn users.",
        "A difference is drawn red when its whole interval lies below zero, green when above, grey when it holds zero. "
        "The dashed line is zero, the red tick the margin that may be lost.",
        f"A slice fails when it loses more than the tolerance and Holm's step-down over all judged slices, at "
        f"{1 - decision['confidence']:.2g} for the family, rejects that chance made the loss.",
        "A rule that cannot be computed fails. Comparison rules do not apply only when there is no champion.",
    ]
    return "<h2>How to read this</h2><ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """Rows of HTML below their headings, cards on a phone; a heading that begins with # is that of numbers."""
    cells = "".join(
        f'<th class="n">{escape(name[1:])}</th>' if name.startswith("#") else f"<th>{escape(name)}</th>"
        for name in head
    )
    body = "\n".join(labelled(row, (name.removeprefix("#") for name in head)) for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def difference_cells(difference: Mapping[str, Any] | None, scale: float, margin: float | None = None) -> str:
    """Three table cells: a difference, its interval, and both drawn on a scale (see `scale_of`)."""
    parts = [(difference or {}).get(part) for part in ("value", "low", "high")]
    value, low, high = parts
    if value is None or low is None or high is None:
        return '<td class="n soft">not known</td><td></td><td></td>'
    tone = "worse" if high < 0 else "better" if low > 0 else "unclear"

    def x(number: float) -> str:  # what lies beyond the scale ends at the border
        return f"{WIDTH / 2 + min(max(number / scale, -1.0), 1.0) * (WIDTH / 2 - 6):.1f}"

    middle, marks = HEIGHT / 2, ""
    if margin is not None and abs(margin) <= scale:
        marks = f'<line class="margin" x1="{x(margin)}" x2="{x(margin)}" y1="3" y2="{HEIGHT - 3}"/>'
    drawing = (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{value:+.4f}, {low:+.4f} to {high:+.4f}">'
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{HEIGHT}"/>{marks}'
        f'<line class="bar" x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot" cx="{x(value)}" cy="{middle}" r="4.5"/></svg>'
    )
    return (
        f'<td class="n {tone}">{value:+.4f}</td><td class="n">{low:+.4f} to {high:+.4f}</td>'
        f'<td class="{tone}">{drawing}</td>'
    )


def scale_of(differences: Iterable[Mapping[str, Any] | None]) -> float:
    """The largest bound of some differences, the half width of their common drawing."""
    bounds = [abs(d[end]) for d in differences if d for end in ("low", "high") if d.get(end) is not None]
    return max(bounds, default=0.0) or 1.0


def _cells(*values: Any) -> str:
    return "".join(f'<td class="n">{_plain(value)}</td>' for value in values)


def _plain(value: Any) -> str:
    if value is None:
        return '<span class="soft">not known</span>'
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.2e}"
    return f"{value:,.0f}" if isinstance(value, int | float) else escape(str(value))


def _is_metric(name: str) -> bool:
    return not name.startswith(("evaluation.", "parity.", "champion.", "truth."))


def _is_slice(gate: Mapping[str, Any]) -> bool:
    return str(gate["name"]).startswith("slice:")


def _section(title: str, head: Sequence[str], rows: Iterable[str], note: str = "") -> str:
    return f"<h2>{escape(title)}</h2>{note}{table(head, rows)}"


def _model(model: Any) -> str:
    if isinstance(model, Mapping):
        return f"{model.get('name', 'unnamed model')} {str(model.get('hash', ''))[:8]}".rstrip()
    return str(model) if model else "unnamed model"
