"""The index of experiments: one self-contained page with status, share, start, verdict and the way to each page."""

from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from monitoring.charts import percent
from monitoring.experiment_book import ExperimentBook
from monitoring.page import STATUS
from uniscale.artifacts import read_json

RESULTS = {"split": "experiment.json", "interleave": "interleaving.json"}
TONES = {"running": "flat", "stopped": "good", "rolled back": "bad"}


def overview(book: ExperimentBook) -> list[dict[str, str]]:
    """One row an experiment, running ones first."""
    rows = []
    for name in book.names():
        definition, steps, status = book.definition(name), book.steps(name), book.status(name)
        analysis = book.folder / name / "analysis" / RESULTS[definition.mode]
        result = read_json(analysis) if analysis.exists() else None
        rows.append(
            {
                "name": name,
                "status": status,
                "share": f"{1 - steps[-1].weights[definition.control]:.0%}",
                "began": steps[0].at[:10],
                "last": f"{steps[-1].action}: {steps[-1].why}",
                "verdict": result["verdict"] if result else "not analysed",
                "reason": result["headline"] if result else "",
                **(
                    (_preference if definition.mode == "interleave" else _primary)(result)
                    if result
                    else {"lift": "–", "interval": "", "trust": "–"}
                ),
                "owner": definition.owner,
                "hypothesis": definition.hypothesis,
            }
        )
    return sorted(rows, key=lambda row: row["status"] != "running")


def _primary(result: Mapping[str, Any]) -> dict[str, str]:
    """Lift of the primary metric, its interval or why there is none, and the checks that did not pass."""
    row = next(row for row in result["metrics"] if row["name"] == result["primary"])
    noticed = [
        f"{check['name']} {STATUS[check['status']][1]}" for check in result["checks"] if check["status"] != "pass"
    ]
    found = {"lift": "–", "interval": f"{row['label']}: {row['withheld']}", "trust": ", ".join(noticed) or "all pass"}
    if row["lift"] is not None and row["interval"]:
        low, high = (percent(bound) for bound in row["interval"])
        found |= {"lift": percent(row["lift"]), "interval": f"{row['label']}, {low} to {high}"}
    return found


def _preference(result: Mapping[str, Any]) -> dict[str, str]:
    """The treatment's share of the credits in the place of a lift."""
    trust = "all pass" if result["fair"] else "draft blocks"
    if result["share"] is None:
        return {"lift": "–", "interval": f"share of clicks: {result['withheld']}", "trust": trust}
    low, high = (f"{bound:.1%}" for bound in result["interval"])
    return {"lift": f"{result['share']:.1%}", "interval": f"share of clicks, {low} to {high}", "trust": trust}


def write_index(book: ExperimentBook) -> Path:
    """Write `index.html` into the book's folder."""
    style = resources.files("monitoring").joinpath("page.css").read_text()
    rows = "".join(
        f'<tr><th scope="row">{_link(book, row["name"])}<small>{escape(row["hypothesis"])}</small>'
        f"<small>{escape(row['owner'])}</small></th>"
        f'<td data-label="status"><span><span class="badge {TONES[row["status"]]}">{row["status"]}</span>'
        f"<small>{escape(row['last'])}</small></span></td>"
        f'<td data-label="treatment"><span>{row["share"]}<small>since {row["began"]}</small></span></td>'
        f'<td data-label="verdict"><span>{escape(row["verdict"])}<small>{escape(row["reason"])}</small></span></td>'
        f'<td data-label="primary"><span>{escape(row["lift"])}<small>{escape(row["interval"])}</small></span></td>'
        f'<td data-label="checks">{escape(row["trust"])}</td></tr>'
        for row in overview(book)
    )
    head = "".join(
        f'<th scope="col">{t}</th>'
        for t in ("Experiment", "Status", "Treatment", "Verdict", "Primary metric", "Checks")
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/><title>Experiments</title>'
        f"<style>{style}</style></head><body><main><h1>Experiments</h1>"
        '<div class="scroll" role="region" tabindex="0" aria-label="Experiments">'
        f'<table class="cards"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></main></body></html>\n'
    )
    path = book.folder / "index.html"
    path.write_text(page)
    return path


def _link(book: ExperimentBook, name: str) -> str:
    page = Path(name) / "analysis" / "experiment.html"
    return f'<a href="{escape(str(page))}">{escape(name)}</a>' if (book.folder / page).exists() else escape(name)
