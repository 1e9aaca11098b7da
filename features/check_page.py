"""What an examined log folder shows, as tables for a terminal and as one self-contained page."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from uniscale.run_report import STYLE, Section, tables_html

Result = Mapping[str, Any]


def verdict(result: Result) -> str:
    """The outcome in a sentence."""
    if result["broken"]:
        return f"The contract is broken: {result['broken']}"
    return "The contract holds" + (
        "." if result["split"]["fits"] else f", but the split fails: {result['split']['why']}"
    )


def sections(result: Result) -> Iterable[Section]:
    """Tables of a result of `features.check.check_logs`, as far as it goes."""
    if "tables" not in result:
        return
    yield (
        "Tables",
        ["table", "rows", "quarantined", "reasons"],
        [
            [name, f"{counts['rows_in']:,}", f"{counts['quarantined']:,}", _reasons(counts["reasons"])]
            for name, counts in result["tables"].items()
        ],
    )
    if result["warnings"]:
        yield "Warnings", [""], [[warning] for warning in result["warnings"]]
    if "days" not in result:
        return
    yield "Volume by day", ["day", "requests", "exposures", "events", ""], _volume(result["days"])
    yield (
        "Freshness",
        ["table", "newest", "age in hours"],
        [[name, row["newest"], f"{row['age_hours']:,.1f}"] for name, row in result["freshness"].items()],
    )
    lost = result["requests_of_events"]
    yield (
        "Events whose request is unknown",
        ["events", "name none", "name one that the logs lack", "share"],
        [[f"{lost['events']:,}", f"{lost['unnamed']:,}", f"{lost['unknown']:,}", f"{lost['share']:.1%}"]],
    )
    header = ["task", "window in hours", "events", "inside it", "median hours", "99 % by", "complete to", "still open"]
    yield "Labels of the served domain", header, [_label(row) for row in result["labels"]]
    split = result["split"]
    spans = [[row["split"], row["first"], row["last"], f"{row['requests']:,}"] for row in split["spans"]]
    yield "Split", ["part", "first day", "last day", "requests"], spans or [["none", "", "", split["why"]]]
    if result["limits"]:
        yield "What this source cannot show", [""], [[limit] for limit in result["limits"]]


def page(result: Result, name: str) -> str:
    """The result as one HTML document that reads offline.

    Args:
        result: of `features.check.check_logs`.
        name: what the log folder is called in the title.
    """
    title = escape(f"Logs {name}")
    return (
        f"{STYLE.replace('{title}', title)}<h1>{title}</h1><p>{escape(verdict(result))}</p>"
        f"{tables_html(sections(result))}</html>\n"
    )


def _reasons(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{reason} ({count:,})" for reason, count in reasons.items())


def _volume(days: Result) -> list[list[str]]:
    notes = {**dict.fromkeys(days["missing"], "missing"), **dict.fromkeys(days["thin"], "thin")}
    return [
        [row["day"], *(f"{row[name]:,}" for name in ("requests", "exposures", "events")), notes.get(row["day"], "")]
        for row in days["volume"]
    ]


def _label(row: Result) -> list[str]:
    if not row["events"]:
        delays = ["", "", ""]
    else:
        delays = [f"{row['within']:.1%}", f"{row['median_hours']:.2f}", f"{row['p99_hours']:.2f}"]
    ends = [row["matured_until"], f"{row['open_requests']:,} requests"]
    return [row["task"], f"{row['window_hours']:g}", f"{row['events']:,}", *delays, *ends]
