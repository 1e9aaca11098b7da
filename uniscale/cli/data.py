"""Verbs about data before a run: is a log folder fit to be trained on, which versions were there, what changed."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from uniscale.cli.options import ConfigPath, Rows, Settings, console, load

Dataset = Annotated[Path, typer.Argument(help="A file or folder that DVC tracks in this git checkout.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Pinned = Annotated[Path, typer.Option(help="Folder of versions that were brought back.")]
PINNED = Path("runs/data")


def register(app: typer.Typer) -> None:
    """Add the verbs as `data …`."""
    verbs = typer.Typer(no_args_is_help=True)
    verbs.callback()(_group)
    for verb in (check, ids, log, diff, pin):
        verbs.command()(verb)
    app.add_typer(verbs, name="data", rich_help_panel="Steps")


def _group() -> None:
    """Logs before a run and their versions, samples after one."""


def check(
    path: Annotated[Path, typer.Argument(help="Log folder in the contract.")],
    page: Annotated[Path | None, typer.Option(help="HTML file to write as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Examine a log folder: broken rules, gaps, freshness, lost requests, label maturity, and whether the split fits.

    Nothing is written but the page. Exits with 1 when the contract is broken, as it would stop a run.
    """
    from datetime import UTC, datetime

    from features.check import check_logs
    from features.check_page import page as html
    from features.check_page import sections, verdict
    from uniscale.run_report import print_tables

    c = load(config, settings)
    with contextlib.redirect_stdout(sys.stderr):  # progress is not part of the answer
        result = check_logs(c.ingest, c.samples, path, datetime.now(UTC))
    if page:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html(result, path.resolve().name))
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        screen = console()
        print_tables(sections(result), screen)
        screen.print(verdict(result), markup=False)
    raise typer.Exit(1 if result["broken"] else 0)


def ids(
    rows: Rows,
    share: Annotated[
        float, typer.Option(min=0.001, max=0.9, help="Share of ids in shared rows that is bearable.")
    ] = 0.1,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """How ids share the rows of their embedding tables, and the rows that each table should have."""
    from rich.table import Table

    from features.id_tables import id_tables

    table_rows = load(config, settings).model.table_rows
    table = Table("table", "ids", f"shared at {table_rows:,} rows", "expected", f"rows for {share:.0%}")
    for entry in id_tables(rows, table_rows, share):
        counts = f"{entry['shared']:.1%}", f"{entry['expected']:.1%}", f"{entry['rows']:,}"
        table.add_row(entry["table"], f"{entry['ids']:,}", *counts)
    console().print(table)


def log(path: Dataset, as_json: AsJson = False) -> None:
    """List the versions of a dataset, newest first: what each held (its DVC hash), since which commit, and why."""
    from dataclasses import asdict

    from uniscale.dataset import versions
    from uniscale.run_report import print_tables

    found = versions(path)
    if as_json:
        typer.echo(json.dumps([asdict(version) for version in found], indent=1))
        return
    rows = [[v.hash[:12], v.revision, v.at, v.author, v.message] for v in found]
    print_tables([(f"Versions of {path}", ["DVC hash", "commit", "at", "by", "message"], rows)], console())


def diff(
    path: Dataset,
    old: Annotated[str, typer.Argument(help="A version: commit, tag, branch, or the first digits of a DVC hash.")],
    new: Annotated[str | None, typer.Argument(help="Another one; the files as they are now if absent.")] = None,
    out: Pinned = PINNED,
    as_json: AsJson = False,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Say what changed in a log folder between two versions: days, rows, schema, label rates, drifted columns."""
    from monitoring.dataset_diff import diff as compare
    from monitoring.dataset_diff import tables
    from uniscale.dataset import find_version
    from uniscale.dataset import pin as bring_back
    from uniscale.run_report import print_tables

    rules = load(config, settings).drift
    before, after = (bring_back(path, find_version(path, name), out) if name else path for name in (old, new))
    found = compare(before, after, rules.top_ids, rules.psi_warn, rules.js_warn)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_tables(tables(found), console())


def pin(
    path: Dataset,
    version: Annotated[str, typer.Argument(help="Commit, tag, branch, or the first digits of a DVC hash.")],
    out: Pinned = PINNED,
) -> None:
    """Bring a version back into a folder of its own, which never changes; prints the folder, for --input."""
    from uniscale.dataset import find_version
    from uniscale.dataset import pin as bring_back

    typer.echo(bring_back(path, find_version(path, version), out))
