"""The summary of a run: numbers and pages gathered from its steps' JSON, on the console and as one page."""

import html
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale.artifacts import content_hash, read_json, write_json
from uniscale.cards import CARDS, labelled

if TYPE_CHECKING:
    from rich.console import Console

PAGES = {
    "gate": ("gate", "decision.html"),
    "drift": ("drift", "drift.html"),
    "experiment": ("experiment", "analysis/experiment.html"),
    "training": ("evaluation", "model/curves.html"),
}
Section = tuple[str, list[str], list[list[str]]]  # title, header, rows
COMPARED = ("auc", "gauc", "qauc", "hr@5", "ece")


def summarise(folders: Mapping[str, Path], verdict: str, run_folder: Path) -> Path:
    """Write `summary.json`, the pages and `report.html` into the run's folder; gives the path of the page.

    Args:
        folders: output folder of the steps samples, ingest, evaluation, gate, smoke, drift and experiment.
        verdict: `promote` or `reject`.
        run_folder: the run's folder.
    """
    run_folder = Path(run_folder)
    run_folder.mkdir(parents=True, exist_ok=True)
    manifest = read_json(folders["samples"] / "manifest.json")
    evaluation = read_json(folders["evaluation"] / "measures.json")
    summary = {
        "data_hash": content_hash(folders["ingest"]),
        "quarantine": read_json(folders["ingest"] / "report.json"),
        "splits": manifest["splits"],
        "table1": manifest["table1"],
        "skipped": manifest["skipped"],
        "metrics": evaluation["measures"],
        "gate": {"decision": verdict, **read_json(folders["gate"] / "decision.json")},
        "serving": read_json(folders["smoke"] / "smoke.json"),
        "drift": read_json(folders["drift"] / "drift.json"),
        **_experiment(folders["experiment"]),
    }
    summary["reports"] = _copy_pages(folders, run_folder)
    page = run_folder / "report.html"
    summary["reports"]["run"] = str(page)
    write_json(run_folder / "summary.json", summary)
    page.write_text(_page(run_folder.name, summary), encoding="utf-8")
    return page


def _experiment(folder: Path) -> dict[str, Any]:
    if (folder / "replay").exists():
        return {"replay": read_json(folder / "replay" / "replay.json")}
    (found,) = (name for name in ("experiment", "interleaving") if (folder / "analysis" / f"{name}.json").exists())
    return {found: read_json(folder / "analysis" / f"{found}.json")}


def _copy_pages(folders: Mapping[str, Path], run_folder: Path) -> dict[str, str]:
    reports = {}
    for name, (step, path) in PAGES.items():
        source = folders[step] / path
        if source.exists():
            shutil.copyfile(source, run_folder / f"{name}.html")
            reports[name] = str(run_folder / f"{name}.html")
    return reports


def sections(summary: Mapping[str, Any]) -> Iterable[Section]:
    """The summary as titled tables: title, header, rows."""
    if summary["table1"]:
        header = ["stage", "requests", "samples", "click positives"]
        yield (
            "Samples against search-exposed only (UniScale, Table 1)",
            header,
            [_stage(row) for row in summary["table1"]],
        )
    metrics = summary["metrics"]
    rows = list(_comparison(metrics))
    yield "Search-exposed test rows, in-domain labels", ["metric", "candidate", "champion", "difference"], rows
    gates = summary["gate"]["gates"]
    failed = [gate for gate in gates if gate["verdict"] == "fail"]
    rows = [["decision", summary["gate"]["decision"]], ["rules", f"{len(gates)}, of which {len(failed)} failed"]]
    yield "Gate", ["", ""], rows + [[gate["name"], gate["why"]] for gate in failed]
    yield "Service", ["", ""], _service(summary["serving"])
    yield "Drift, training days against test days", ["", ""], _drift(summary["drift"])
    if "replay" in summary:
        yield (
            f"Replay through the live service ({summary['replay']['online_ab']})",
            ["", ""],
            _replay(summary["replay"]),
        )
    elif "interleaving" in summary:
        yield "Interleaved lists before simulated users", ["", ""], _interleaving(summary["interleaving"])
    else:
        yield "Online experiment on simulated users", ["", ""], _verdict(summary["experiment"])


def _stage(row: Mapping[str, Any]) -> list[str]:
    counts = ((row[key], row[f"{key}_x"]) for key in ("requests", "samples", "click_positives"))
    return [row["stage"], *(f"{count:,} ({ratio:.2f}x)" for count, ratio in counts)]


def _comparison(metrics: Mapping[str, Any]) -> Iterable[list[str]]:
    for key, value in metrics.items():
        measure = key.rpartition(".")[2]
        other = key.startswith(("champion.", "difference.")) or (key.count(".") > 1 and measure != "auc")
        if other or measure not in COMPARED or value is None:
            continue
        champion, difference = metrics.get(f"champion.{key}"), metrics.get(f"difference.{key}")
        yield [key, f"{value:.4f}", _number(champion), _interval(difference)]


def _interval(difference: Any) -> str:
    if difference is None:
        return ""
    if isinstance(difference, Mapping):
        return f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
    return f"{difference:+.4f}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"


def _service(smoke: Mapping[str, Any]) -> list[list[str]]:
    failed = [name for name, passed in smoke["checks"].items() if not passed]
    latency = f"p50 {smoke['p50_ms']:.1f} ms, p99 {smoke['p99_ms']:.1f} ms at {smoke['candidates']} candidates"
    return [["checks", "all passed" if not failed else f"failed: {', '.join(failed)}"], ["latency", latency]]


def _drift(drift: Mapping[str, Any]) -> list[list[str]]:
    return [
        ["verdict", drift["verdict"]],
        ["why", drift["reason"]],
        *(["noticed", line] for line in drift["drifted"][:5]),
    ]


def _replay(replay: Mapping[str, Any]) -> list[list[str]]:
    rows = [["requests", f"{replay['requests']:,}, fallbacks {replay['fallbacks']}"]]
    for variant, measured in replay["metrics"].items():
        for task, values in ((task, values) for task, values in measured.items() if isinstance(values, Mapping)):
            numbers = ", ".join(f"{name} {_number(value)}" for name, value in values.items() if name != "positives")
            rows.append([f"{variant}, {task}", f"{numbers} ({values['positives']:,} positives)"])
    off_policy = replay["off_policy"]
    if off_policy["estimates"] is None:
        return [*rows, ["off-policy estimate", f"none: {off_policy['why_not']}"]]
    return [*rows, ["off-policy estimate", f"on {off_policy['requests']:,} requests in random order, see the report"]]


def _interleaving(found: Mapping[str, Any]) -> list[list[str]]:
    counts = ", ".join(f"{how} {count:,}" for how, count in found["requests"].items())
    return [["preference", found["statement"]], [f"requests by {found['treatment']}", counts]]


def _verdict(experiment: Mapping[str, Any]) -> list[list[str]]:
    primary = next(row for row in experiment["metrics"] if row["name"] == experiment["primary"])
    users = ", ".join(f"{arm['name']} {arm['users']:,} users" for arm in experiment["variants"].values())
    rows = [["mode", f"{experiment['mode']}: {users}"]]
    if experiment["sample_ratio"]:
        rows.append(
            ["sample ratio", f"{experiment['sample_ratio']['status']}, p = {experiment['sample_ratio']['p']:.3g}"]
        )
    if primary["withheld"] or primary["lift"] is None:
        rows.append([primary["label"], f"withheld: {primary['withheld']}"])
    else:
        low, high = primary["interval"]
        rows.append([primary["label"], f"lift {primary['lift']:+.1%}, interval {low:+.1%} to {high:+.1%}"])
    if primary["mde"] is not None:
        short = primary["mde"] > experiment["mde_target"]
        judged = f"underpowered for the {experiment['mde_target']:.0%} asked for" if short else "enough power"
        rows.append(["detectable lift", f"{primary['mde']:.1%}: {judged}"])
    return [*rows, ["verdict", experiment["verdict"]], ["why", experiment["reason"]]]


def print_tables(tables: Iterable[Section], console: "Console") -> None:
    """Print tables of texts for people."""
    from rich.table import Table
    from rich.text import Text

    for title, header, rows in tables:
        table = Table(*header, title=title, title_justify="left", show_header=any(header))
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def write_report(run_folder: Path, title: str, tables: Iterable[Section], found: Mapping[str, Any]) -> None:
    """Write `summary.json` (what was found, and its tables) and `report.html` of a run that judges no candidate."""
    run_folder, shown = Path(run_folder), list(tables)
    run_folder.mkdir(parents=True, exist_ok=True)
    page = run_folder / "report.html"
    name = html.escape(f"{title} {run_folder.name}")
    page.write_text(STYLE.replace("{title}", name) + f"<h1>{name}</h1>" + tables_html(shown), encoding="utf-8")
    write_json(run_folder / "summary.json", {**found, "tables": shown, "skipped": [], "reports": {"run": str(page)}})


def print_summary(run_folder: Path, console: "Console") -> None:
    """Print the summary of a completed run."""
    from rich.markup import escape

    manifest = read_json(Path(run_folder) / "manifest.json")
    print_tables(manifest["tables"] if "tables" in manifest else sections(manifest), console)
    for note in manifest["skipped"]:
        console.print(f"skipped: {note}", markup=False)
    seconds = sum(step["seconds"] for step in manifest["steps"])
    console.print(f"{seconds:.0f} s in {sum(step['status'] == 'done' for step in manifest['steps'])} steps")
    console.print(f"reports: {manifest['reports']['run']}", markup=False)
    if "gate" not in manifest:
        return
    if manifest["gate"]["decision"] == "promote":
        console.print("[bold green]promoted[/bold green]: the candidate is the champion now")
    else:
        failed = ", ".join(manifest["gate"]["failed"])
        console.print("[bold yellow]rejected[/bold yellow], the champion stays; failed:", escape(failed))


def _page(run_id: str, summary: Mapping[str, Any]) -> str:
    parts = [f"<h1>Run {html.escape(run_id)}: {html.escape(summary['gate']['decision'])}</h1>"]
    links = (f'<a href="{name}.html">{name}</a>' for name in summary["reports"] if name != "run")
    parts.append(f"<p>{' · '.join(links)}</p>")
    parts.append(tables_html(sections(summary)))
    parts.extend(f"<p>Skipped: {html.escape(str(note))}</p>" for note in summary["skipped"])
    return STYLE.replace("{title}", f"Run {html.escape(run_id)}") + "".join(parts)


def tables_html(tables: Iterable[Section]) -> str:
    """The same tables as HTML, each below its heading."""
    parts = []
    for title, header, rows in tables:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        body = "".join(f"<tr>{labelled(row, header)}</tr>" for row in cells)
        parts.append(f"<h2>{html.escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    return "".join(parts)


STYLE = (
    """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>{title}</title><style>
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #8884;text-align:left}
td{overflow-wrap:break-word}h2{font-size:1.1rem;margin-top:2rem}
"""
    + f"{CARDS}</style>\n"
)
