"""Verbs for Kubeflow Pipelines: compile the pipeline, submit a run and follow it."""

from pathlib import Path
from typing import Annotated

import typer

from uniscale.cli.options import ConfigPath, Settings, load


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="compile")(compile_pipeline)
    app.command()(submit)


def compile_pipeline(
    out: Annotated[Path, typer.Option(help="IR YAML to write.")] = Path("uniscale-training.yaml"),
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Compile the training pipeline to the IR YAML that Kubeflow Pipelines takes."""
    from pipelines.submit import compile_to

    compile_to(load(config, settings), out)
    typer.echo(f"wrote {out}")


def submit(
    host: Annotated[str, typer.Option(envvar="KFP_HOST", help="URL of the Kubeflow Pipelines API.")],
    token: Annotated[
        str | None, typer.Option(envvar="KFP_TOKEN", help="Bearer token, if the API asks for one.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="Kubeflow experiment to file the run under.")] = "uniscale",
    wait: Annotated[bool, typer.Option(help="Follow the run; the exit code is its outcome.")] = True,
    timeout_seconds: Annotated[float, typer.Option(help="How long to follow.")] = 86400.0,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Submit the training pipeline to Kubeflow and follow it to its end."""
    from pipelines.submit import follow, submit_run

    client, run_id = submit_run(load(config, settings), host, token, experiment)
    typer.echo(f"run {run_id}: {host}/#/runs/details/{run_id}")
    if wait:
        follow(client, run_id, timeout_seconds, typer.echo)
