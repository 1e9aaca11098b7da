"""The page of one experiment: a single HTML file with its style and charts inside, verdict first, readable offline.

It only shows what `experiment.json` holds; a number that was withheld is shown as its reason.
"""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from monitoring.charts import Axis, days_chart, forest_axis, forest_row, percent

Result = Mapping[str, Any]

VERDICT_TONES = {"ship": "good", "roll back": "bad", "invalid": "bad", "underpowered": "warn", "keep running": "flat"}
STATUS = {
    "pass": ("good", "passes"),
    "warn": ("warn", "warning"),
    "block": ("bad", "blocks"),
    "breach": ("bad", "breached"),
    "open": ("warn", "open"),
}
ROLES = {"primary": "decides", "guardrail": "guardrail", "secondary": ""}
TERMS = {
    "Lift": "Candidate over control, minus one; the user is the unit, as users are what was randomised.",
    "Interval": "Thick bar: where the true lift lies at the stated confidence, for one look at the planned end.",
    "Always valid": "Thin line: an interval that holds however often one looks; only it may stop an experiment early.",
    "p": "Chance of a difference at least this large if there were none.",
    "p adjusted": "The same after the false discovery rate over all metrics but the deciding one (Benjamini–Hochberg).",
    "MDE": "Minimum detectable effect: the least lift these users could show with the planned power.",
    "CUPED": "The lift is adjusted by what the same users did before the experiment, which narrows the interval.",
    "Guardrail": "A metric that may not lose more than its margin; it passes when its whole interval is within it.",
    "Sample ratio": "Whether the users split as planned; if not, the groups are not comparable and lifts mean nothing.",
}


def render(result: Result) -> str:
    """The page of a result of `monitoring.experiment.analyse`, as one HTML document."""
    style = resources.files("monitoring").joinpath("page.css").read_text()
    names = {role: result["variants"][role]["name"] for role in ("control", "treatment")}
    title = f"{result['mode']}: {names['treatment']} against {names['control']}"
    if result["name"] != "pipeline":
        title = f"{result['name']}, {title}"
    sections = [
        ("scorecard", "Scorecard", _scorecard(result)),
        ("guardrails", "Guardrails", _guardrails(result)),
        ("days", "Cumulative lift by day", _days(result)),
        ("power", "Power", _power(result)),
        *([("latency", "Latency", _latency(result))] if result["latency"] else []),
        *([("cuts", "Cuts", _cuts(result))] if result["source"]["kind"] == "logs" else []),
        ("checks", "Checks and data", _checks(result)),
        ("terms", "How to read this", _terms()),
    ]
    dim = ' class="untrusted"' if result["verdict"] == "invalid" else ""
    links = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name, _ in sections)
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(name)}</h2>{content}</section>'
        for key, name, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}: {escape(result['verdict'])}</title><style>{style}</style></head><body>"
        f'<a class="skip" href="#scorecard">Skip to the scorecard</a><main{dim}>'
        f"<h1>{escape(title)} · {_period(result)}</h1>"
        f"{_verdict(result)}{_ratio(result)}{_variants(result)}"
        f'<p class="note">{escape(result["hypothesis"])} {escape(result["source"]["statement"])}</p>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>{body}</main></body></html>\n'
    )


def _period(result: Result) -> str:
    days = result["days"]
    if not days["present"]:
        return "no days" if result["source"]["kind"] == "logs" else "as of the end"
    return f"{days['present'][0]} to {days['present'][-1]}, {len(days['present'])} of {days['planned']} planned days"


def _verdict(result: Result) -> str:
    return (
        f'<div class="verdict {VERDICT_TONES[result["verdict"]]}"><strong>{escape(result["verdict"])}</strong>'
        f'<p class="headline">{escape(result["headline"])}</p><p>{escape(result["reason"])}</p></div>'
    )


def _ratio(result: Result) -> str:
    ratio = result["sample_ratio"]
    if ratio is None:
        return '<div class="banner bad" role="alert"><b>Sample ratio:</b> a variant is empty.</div>'
    tone, word = STATUS[ratio["status"]]
    role = "status" if ratio["status"] == "pass" else "alert"
    return f'<div class="banner {tone}" role="{role}"><b>Sample ratio {word}.</b> {escape(ratio["statement"])}</div>'


def _variants(result: Result) -> str:
    counted = [key for key in result["variants"]["control"] if key not in ("name", "versions")]
    rows = "".join(
        f'<tr><th scope="row">{escape(v["name"])} '
        f"<small>{role}{', version ' + escape(', '.join(v['versions'])) if v['versions'] else ''}</small></th>"
        + "".join(f'<td data-label="{key}">{v[key]:,}</td>' for key in counted)
        + "</tr>"
        for role, v in result["variants"].items()
    )
    unit = {"units": "Units", "counts": "Trials"}.get(result["source"]["kind"], "Users")
    named = {"users": unit, "impressions": "Exposed items"}
    return _table("Variants", ("Variant", *(named.get(key, key.capitalize()) for key in counted)), rows)


def _scorecard(result: Result) -> str:
    rows = result["metrics"]
    axis = Axis.around([row["interval"] for row in rows])
    margins = {item["metric"]: item["margin"] for item in result["guardrails"]}
    order = {"primary": 0, "guardrail": 1, "secondary": 2}
    names = [result["variants"][role]["name"] for role in ("control", "treatment")]
    body = "".join(
        _metric(row, axis, margins, names, result["alpha"]) for row in sorted(rows, key=lambda row: order[row["role"]])
    )
    head = ("Metric", *names, f"Lift, {1 - result['alpha']:.0%} interval", forest_axis(axis), "p", "p adjusted", "MDE")
    cuped = "Lifts are adjusted by CUPED where a row says so. " if any(row["cuped"] for row in rows) else ""
    if result["verdict"] == "invalid":
        cuped = "Not to be read: a check blocks. " + cuped
    note = f'<p class="note">{cuped}Thick bar: fixed-horizon interval; thin line: always valid; dashed: margin.</p>'
    return _table("Lift of each metric", head, body) + note


def _metric(row: Result, axis: Axis, margins: Mapping[str, float], names: Sequence[str], alpha: float) -> str:
    badge = f' <span class="badge flat">{ROLES[row["role"]]}</span>' if ROLES[row["role"]] else ""
    meaning = f"<small>{escape(row['meaning'])}</small>"
    head = f'<tr class="{row["role"]}"><th scope="row">{escape(row["label"])}{badge}{meaning}</th>'
    if row["withheld"]:
        return f'{head}<td class="withheld" colspan="7">withheld: {escape(row["withheld"])}</td></tr>'
    tone = _tone(row, alpha)
    margin = margins.get(row["name"])
    edge = None if margin is None else -margin if row["better"] == "higher" else margin
    always = row["always_valid"]["interval"] if row["always_valid"] else None
    less = (
        f"<small>CUPED, variance −{row['variance_reduction']:.0%}</small>"
        if row["cuped"] and (row["variance_reduction"] or 0) >= 0.005
        else ""
    )
    return (
        f"{head}{_cell(names[0], _value(row['control'], row['unit']))}"
        f"{_cell(names[1], _value(row['treatment'], row['unit']))}"
        f'<td data-label="lift" class="tone {tone}"><span>{percent(row["lift"])}'
        f"<small>{_interval(row['interval'])}</small>{less}</span></td>"
        f'<td class="plot">{forest_row(axis, row["lift"], row["interval"], always, tone, edge)}</td>'
        f"{_cell('p', _p(row['p']))}{_cell('p adjusted', _p(row['p_adjusted']))}"
        f"{_cell('MDE', '–' if row['mde'] is None else percent(row['mde']).lstrip('+'))}</tr>"
    )


def _guardrails(result: Result) -> str:
    if not result["guardrails"]:
        return '<p class="note">No guardrail was set.</p>'
    return _list((item["status"], item["statement"]) for item in result["guardrails"])


def _days(result: Result) -> str:
    parts = []
    labels = {row["name"]: row["label"] for row in result["metrics"]}
    for name in sorted({point["metric"] for point in result["by_day"]}, key=lambda name: name != result["primary"]):
        points = [point for point in result["by_day"] if point["metric"] == name]
        rows = "".join(
            f'<tr><th scope="row">{point["day"]}</th>'
            + (
                f'<td class="withheld" colspan="3">{escape(str(point["withheld"]))}</td></tr>'
                if point["lift"] is None
                else f"<td>{percent(point['lift'])}</td><td>{_interval(point['interval'])}</td>"
                f"<td>{_interval(point['always_valid'] and point['always_valid']['interval'])}</td></tr>"
            )
            for point in points
        )
        table = _table(f"{labels[name]} up to each day", ("Day", "Lift", "Interval", "Always valid"), rows)
        parts.append(
            f"<h3>{escape(labels[name])}</h3>{days_chart(points, labels[name])}"
            f"<details><summary>Numbers</summary>{table}</details>"
        )
    return "".join(parts) or '<p class="note">No metric of the scorecard can be followed by day.</p>'


def _power(result: Result) -> str:
    primary = next(row for row in result["metrics"] if row["name"] == result["primary"])
    users = sum(variant["users"] for variant in result["variants"].values())
    if primary["mde"] is None:
        reason = primary["withheld"] or "not a mean or ratio"
        return f'<p class="note">No MDE for {escape(primary["label"])}: {escape(reason)}.</p>'
    needed = primary["users_needed"]
    return (
        f"<p>With {users:,} users, the least lift of {escape(primary['label'])} that shows with "
        f"{result['power']:.0%} power is <b>{primary['mde']:.1%}</b>; the target is {result['mde_target']:.1%}, "
        f"which takes about <b>{needed:,} users</b>.</p>"
        f'<meter min="0" max="{needed}" value="{min(users, needed)}">{users:,} of {needed:,} users</meter>'
    )


def _latency(result: Result) -> str:
    names = {role: result["variants"][role]["name"] for role in ("control", "treatment")}
    rows = "".join(
        f'<tr><th scope="row">p{round(row["quantile"] * 100)} <small>{escape(names[row["variant"]])}</small></th>'
        f'<td data-label="ms">{row["estimate"]:.1f}</td><td data-label="interval">{_bounds(row)}</td>'
        f'<td data-label="requests">{row["count"]:,}</td></tr>'
        for row in sorted(result["latency"], key=lambda row: row["quantile"])
    )
    return _table("Milliseconds a request, clustered by user", ("Quantile", "ms", "Interval", "Requests"), rows)


def _cuts(result: Result) -> str:
    cuts = result["cuts"]
    note = (
        f'<p class="note">Not cut by new and returning users: {escape(cuts["withheld"])}.</p>'
        if cuts["withheld"]
        else ""
    )
    if not cuts["rows"]:
        return note
    label = next(row["label"] for row in result["metrics"] if row["name"] == cuts["metric"])
    axis = Axis.around([row["interval"] for row in cuts["rows"]])
    body = ""
    for row in cuts["rows"]:
        head = f'<tr><th scope="row">{escape(row["value"])} <small>{escape(row["cut"])}</small></th>'
        users = _cell("users", " / ".join(f"{n:,}" for n in row["users"]))
        if row["lift"] is None:
            body += f'{head}{users}<td class="withheld" colspan="3">{escape(row["withheld"])}</td></tr>'
            continue
        body += (
            f'{head}{users}<td data-label="lift"><span>{percent(row["lift"])}'
            f"<small>{_interval(row['interval'])}</small></span></td>"
            f'<td class="plot">{forest_row(axis, row["lift"], row["interval"], None, "flat")}</td>'
            f"{_cell('p adjusted', _p(row['p_adjusted']))}</tr>"
        )
    columns = ("Cut", "Users, control / candidate", "Lift", forest_axis(axis), "p adjusted")
    explore = '<p class="note">Exploratory: a cut suggests the next experiment and decides nothing in this one.</p>'
    return _table(f"{label} within groups of users", columns, body) + explore + note


def _checks(result: Result) -> str:
    fresh, listed = result["freshness"], _list((check["status"], check["statement"]) for check in result["checks"])
    if fresh is None:
        return listed
    return listed + (
        f'<p class="note">First request {fresh["first_request"]}, last request {fresh["last_request"]}, last event '
        f"{fresh['last_event']}. Outcomes are credited to the request they refer to.</p>"
    )


def _terms() -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in TERMS.items()) + "</dl>"


def _table(caption: str, head: Sequence[str], rows: str) -> str:
    """A table that scrolls by keyboard when wide and turns into cards when narrow; `head` may hold an SVG."""
    cells = "".join(
        f'<th scope="col" class="plot">{text}</th>'
        if text.startswith("<svg")
        else f'<th scope="col">{escape(text)}</th>'
        for text in head
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption, quote=True)}">'
        f'<table class="cards"><caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _list(items: Any) -> str:
    rows = "".join(
        f'<li><span><span class="badge {STATUS[status][0]}">{STATUS[status][1]}</span></span>'
        f"<span>{escape(statement)}</span></li>"
        for status, statement in items
    )
    return f'<ul class="plain">{rows}</ul>'


def _cell(label: str, text: str) -> str:
    return f'<td data-label="{escape(label, quote=True)}">{text}</td>'


def _tone(row: Result, alpha: float) -> str:
    """Colour of a lift: only what survives the correction for many metrics is called good or bad."""
    if row["p_adjusted"] is None or row["p_adjusted"] >= alpha:
        return "flat"
    return "good" if (row["lift"] > 0) == (row["better"] == "higher") else "bad"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return {"share": f"{value:.2%}", "ms": f"{value:.1f} ms", "count": f"{value:.3f}", "money": f"{value:,.2f}"}[unit]


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if not interval else f"{percent(interval[0])} to {percent(interval[1])}"


def _bounds(row: Result) -> str:
    return "too few" if row["lower"] is None else f"{row['lower']:.1f} to {row['upper']:.1f}"


def _p(value: float | None) -> str:
    return "–" if value is None else "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def lift_in_words(row: Result) -> str:
    """A metric's row in one line of text."""
    if row["withheld"]:
        return f"withheld, {row['withheld']}"
    values = f"{_value(row['control'], row['unit'])} to {_value(row['treatment'], row['unit'])}"
    p = "" if row["p"] is None else f", p = {row['p']:.2g}"
    return f"{values}, lift {percent(row['lift'])}, interval {_interval(row['interval'])}{p}"
