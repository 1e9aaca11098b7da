"""Verbs of online experiments: the pipeline's step, and the analysis of any experiment described in a YAML file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uniscale.cli.options import ConfigPath, Deployment, Logs, Out, Rows, Settings, load
from uniscale.cli.steps import call

NOT_BELIEVED = 4

Experiment = Annotated[
    Path, typer.Option("--config", help="YAML of the experiment, e.g. docs/examples/cookie_cats.yaml.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs as `experiment …`."""
    verbs = typer.Typer(no_args_is_help=True, help="Online experiments: run, analyze.")
    verbs.command()(run)
    verbs.command()(analyze)
    app.add_typer(verbs, name="experiment", rich_help_panel="Steps")


def run(
    logs: Logs, rows: Rows, deployment: Deployment, out: Out, settings: Settings = None, config: ConfigPath = None
) -> None:
    """The step: put both variants before simulated users and analyse the A/B; on real logs, replay them."""
    c = load(config, settings)
    sections = {"data": c.data, "simulation": c.simulation, "serving": c.serving, "settings": c.experiment}
    call("experiment", seed=c.seed, **sections, clean=logs, rows=rows, deployment=deployment, result=out)


def analyze(
    config: Experiment,
    data: Annotated[
        Path, typer.Option(help="CSV or Parquet table, or a folder with serving_log/ and logs/ for source logs.")
    ],
    out: Out = Path("runs/experiment"),
    before: Annotated[Path | None, typer.Option(help="Log folder of the time before, for CUPED; source logs.")] = None,
    treatment: Annotated[str | None, typer.Option(help="Variant under test, where there are several.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 on a warning as well.")] = False,
) -> None:
    """Analyse an experiment from its data alone and write its page.

    Exits with 4 when a check blocks, because then the lifts mean nothing; with --strict also when one warns.
    """
    from monitoring.definition import load_definition
    from monitoring.experiment import analyse_logs, analyse_table

    definition = load_definition(config)
    if definition.source.kind == "logs":
        result = analyse_logs(definition, data / "serving_log", data / "logs", out, before, treatment)
    else:
        result = analyse_table(definition, data, out, treatment)
    noticed = _say(result)
    typer.echo(f"page: {out / 'experiment.html'}")
    if result["verdict"] == "invalid" or (strict and noticed):
        raise typer.Exit(NOT_BELIEVED)


def _say(result: dict[str, Any]) -> int:
    """Print a result; gives the number of checks that did not pass."""
    from monitoring.page import lift_in_words

    typer.echo(f"{result['name']}: {result['verdict']}. {result['headline']}.\n{result['reason']}")
    typer.echo(result["source"]["statement"])
    failed = [check for check in result["checks"] if check["status"] != "pass"]
    for check in failed:
        typer.echo(f"{'WARNING' if check['status'] == 'warn' else 'BLOCKED'} {check['name']}: {check['statement']}")
    for row in result["metrics"]:
        typer.echo(f"  {row['label']}: {lift_in_words(row)}")
    for item in result["guardrails"]:
        typer.echo(f"  guardrail {item['status']}: {item['statement']}")
    return len(failed)
