"""Verbs that look at data before a run: is a log folder fit to be trained on."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from uniscale.cli.options import ConfigPath, Settings, console, load


def register(app: typer.Typer) -> None:
    """Add the verbs as `data …`."""
    verbs = typer.Typer(no_args_is_help=True)
    verbs.callback()(_group)  # a group of one verb would lose the verb's name
    verbs.command()(check)
    app.add_typer(verbs, name="data", rich_help_panel="Steps")


def _group() -> None:
    """Logs before a run."""


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
