"""Verbs for this machine: run the chain, look at runs, check what is installed."""

from pathlib import Path
from typing import Annotated

import typer

from uniscale.cli.options import (
    ConfigPath,
    Input,
    Parameters,
    Pipeline,
    Settings,
    Source,
    console,
    load,
    parameters_of,
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(run)
    app.command()(show)
    app.command()(doctor)


def run(
    data: Source = None,
    input: Input = None,
    model: Annotated[str | None, typer.Option(help="An entry of the model zoo, e.g. hhsft.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    settings: Settings = None,
    config: ConfigPath = None,
    runs: Annotated[Path, typer.Option(help="Folder of runs, step cache and model registry.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not resume a run that was cut off.")] = False,
    pipeline: Pipeline = "training",
    parameters: Parameters = None,
    data_version: Annotated[
        str | None, typer.Option(help="Version of --input: a commit, tag, branch, or digits of its DVC hash.")
    ] = None,
) -> None:
    """Run the whole chain on this machine: logs, features, samples, training, gate, service, monitoring.

    A run that was killed is resumed from its finished steps when the same command is given again. Exits with 0 when
    the candidate was promoted, with 3 when it was rejected; pipelines without a candidate end with 0.
    """
    screen = console()
    if data_version is not None:
        input = _pinned(input, data_version, runs)
    chosen = load(
        config,
        settings,
        data__source=data,
        data__input=str(input.resolve()) if input else None,
        model__name=model,
        seed=str(seed) if seed is not None else None,
    )
    from pipelines.local import run_locally
    from uniscale.run_report import print_summary

    given = parameters_of(parameters)
    outcome = run_locally(chosen, runs, screen.print, fresh=fresh, pipeline=pipeline, parameters=given)
    print_summary(outcome.folder, screen)
    raise typer.Exit(3 if outcome.promoted is False else 0)


def _pinned(input: Path | None, version: str, runs: Path) -> Path:
    """The named version of the input, brought back below the folder of runs."""
    from uniscale.dataset import find_version, pin
    from uniscale.errors import ConfigError

    if input is None:
        raise ConfigError(f"--data-version {version} is a version of --input: give the path that DVC tracks")
    return pin(input, find_version(input, version), runs / "data")


def show(
    run_id: Annotated[str | None, typer.Argument(help="A run; the newest completed one if absent.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
) -> None:
    """Print the summary of a finished run again."""
    from uniscale.artifacts import read_json
    from uniscale.errors import DataError
    from uniscale.run_report import print_summary

    folders = [path.parent for path in sorted(runs.glob("*/manifest.json"))]
    done = [folder for folder in folders if read_json(folder / "manifest.json")["status"] == "completed"]
    wanted = [folder for folder in done if run_id in (None, folder.name)]
    if not wanted:
        known = ", ".join(folder.name for folder in done) or "none"
        raise DataError(f"no completed run {run_id or ''} in {runs}: completed ones are {known}")
    print_summary(wanted[-1], console())


def doctor() -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from rich.table import Table

    from uniscale.doctor import examine

    table = Table("", "what", "found", "remedy")
    findings = examine()
    for finding in findings:
        mark, remedy = ("ok", "") if finding.fine else ("[red]missing[/red]", finding.remedy)
        table.add_row(mark, finding.what, finding.found, remedy)
    console().print(table)
    raise typer.Exit(0 if all(finding.fine for finding in findings if finding.required) else 1)
