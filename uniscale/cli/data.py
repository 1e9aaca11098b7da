"""Verbs that look at data before a run: is a log folder fit to be trained on."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from uniscale.cli.options import ConfigPath, Rows, Settings, console, load


def register(app: typer.Typer) -> None:
    """Add the verbs as `data …`."""
    verbs = typer.Typer(no_args_is_help=True, help="Logs before a run, samples after one.")
    for verb in (check, ids):
        verbs.command()(verb)
    app.add_typer(verbs, name="data", rich_help_panel="Steps")


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
