"""Verbs for Kubeflow Pipelines: compile a pipeline, build its images, submit a run and follow it, keep schedules."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from uniscale.cli.options import ConfigPath, Parameters, Pipeline, Settings, console, load, parameters_of

Host = Annotated[str, typer.Option(envvar="KFP_HOST", help="URL of the Kubeflow Pipelines API.")]
Token = Annotated[str | None, typer.Option(envvar="KFP_TOKEN", help="Bearer token, if the API asks for one.")]
Namespace = Annotated[str | None, typer.Option(envvar="KFP_NAMESPACE", help="Of a Kubeflow with several users.")]
ProfileName = Annotated[
    str,
    typer.Option("--profile", envvar="UNISCALE_PROFILE", help="A file of profiles/ by its name, or one of your own."),
]
Experiment = Annotated[str, typer.Option(help="Kubeflow experiment to file runs under.")]
Schedule = Annotated[str, typer.Argument(help="Its name or id.")]

schedule = typer.Typer(help="Recurring runs on Kubeflow.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="compile", rich_help_panel="Kubeflow")(compile_pipeline)
    app.command(rich_help_panel="Kubeflow")(images)
    app.command(rich_help_panel="Kubeflow")(submit)
    app.add_typer(schedule, name="schedule", rich_help_panel="Kubeflow")


def compile_pipeline(
    out: Annotated[Path | None, typer.Option(help="IR YAML to write; named like the pipeline if absent.")] = None,
    pipeline: Pipeline = "training",
    profile: Annotated[
        str | None, typer.Option(help="Settle images, resources and devices for a cluster, e.g. cluster-gpu.")
    ] = None,
    graph: Annotated[
        Path | None, typer.Option(help="Draw the pipeline into this Markdown file, in place of its picture there.")
    ] = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Compile a pipeline to the IR YAML that Kubeflow Pipelines takes, and draw it."""
    from pipelines.catalogue import compile_to, pipeline_named
    from pipelines.picture import redraw
    from uniscale.profile import load_profile

    chosen = load(config, settings)
    out = out or Path(f"{pipeline_named(pipeline).name}.yaml")
    compile_to(chosen, out, load_profile(profile) if profile else None, pipeline)
    typer.echo(f"wrote {out}")
    if graph:
        graph.write_text(redraw(graph.read_text() if graph.exists() else "", out))
        typer.echo(f"drew {graph}")


def images(
    profile: ProfileName = "laptop",
    push: Annotated[bool, typer.Option("--push", help="Push what was built, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and no more.")] = False,
) -> None:
    """Print the commands that build a profile's images here, and run them where there is docker or podman."""
    from pipelines.images import build, build_commands, builder
    from uniscale.profile import load_profile

    tool = builder()
    commands = build_commands(load_profile(profile), tool or "docker", push)
    for command in commands:
        typer.echo(" ".join(command))
    if tool and not dry_run:
        build(commands, Path.cwd())
    elif not dry_run:
        typer.echo("not run: this machine has neither docker nor podman, or it does not run", err=True)


def submit(
    host: Host,
    token: Token = None,
    namespace: Namespace = None,
    profile: ProfileName = "laptop",
    experiment: Experiment = "uniscale",
    run_id: Annotated[str | None, typer.Option(help="Follow this run in place of starting one.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the run of --run-id.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Start the failed steps of --run-id again.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow the run; the exit code is its outcome.")] = True,
    timeout_seconds: Annotated[float, typer.Option(help="How long to follow.")] = 86400.0,
    pipeline: Pipeline = "training",
    parameters: Parameters = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Submit a pipeline to Kubeflow and follow it to its end.

    Exits with 0 when the candidate was promoted, 3 when it was rejected, 4 when the run was canceled, 5 when it still
    runs after --timeout-seconds, and 1 when it failed or Kubeflow cannot be reached.
    """
    from uniscale.errors import ConfigError
    from uniscale.profile import load_profile

    if (cancel and retry) or ((cancel or retry) and not run_id):
        raise ConfigError("--cancel and --retry are about a run: give one of them, with --run-id")
    chosen, cluster = load(config, settings), load_profile(profile)
    from pipelines import follow as following
    from pipelines.connection import connect

    client = connect(host, token, namespace)
    from pipelines.submit import Asked, submit_run  # imports kfp, for which a wrong token need not wait

    if run_id and cancel:
        following.cancel(client, host, run_id)
    elif run_id and retry:
        following.retry(client, host, run_id)
    started = run_id or submit_run(
        client, host, Asked(chosen, cluster, pipeline, parameters_of(parameters)), experiment
    )
    typer.echo(f"run {started}: {following.run_page(host, started)}")
    if not wait:
        return
    end = following.follow(client, host, started, timeout_seconds, typer.echo)
    typer.echo(end.message, err=end.exit_code not in (following.PROMOTED, following.REJECTED))
    raise typer.Exit(end.exit_code)


@schedule.command()
def create(
    cron: Annotated[str, typer.Option(help="When, e.g. '0 3 * * *'; six fields begin with seconds.")],
    host: Host,
    token: Token = None,
    namespace: Namespace = None,
    profile: ProfileName = "laptop",
    experiment: Experiment = "uniscale",
    name: Annotated[str | None, typer.Option(help="Name of the schedule; the pipeline's if absent.")] = None,
    pipeline: Pipeline = "training",
    parameters: Parameters = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Run a pipeline whenever a clock says so; one at a time, without catching up."""
    from uniscale.profile import load_profile

    chosen, cluster = load(config, settings), load_profile(profile)
    from pipelines.connection import connect

    client = connect(host, token, namespace)
    from pipelines.submit import Asked, create_schedule

    asked = Asked(chosen, cluster, pipeline, parameters_of(parameters))
    name = name or asked.name
    made = create_schedule(client, host, asked, experiment, name, cron)
    typer.echo(f"schedule {name}: {made}")


@schedule.command(name="list")
def list_schedules(
    host: Host,
    token: Token = None,
    namespace: Namespace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Every schedule, and whether it is paused."""
    from pipelines.connection import connect

    client = connect(host, token, namespace)
    from pipelines.submit import schedules

    rows = [_plain(one) for one in schedules(client, host)]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table("name", "state", "cron", "id")
    for row in rows:
        table.add_row(*(row[key] for key in ("name", "state", "cron", "id")))
    console().print(table)


@schedule.command()
def pause(which: Schedule, host: Host, token: Token = None, namespace: Namespace = None) -> None:
    """Start no more runs; those that run go on."""
    _change(which, "disable_recurring_run", "paused", host, token, namespace)


@schedule.command()
def resume(which: Schedule, host: Host, token: Token = None, namespace: Namespace = None) -> None:
    """Start runs again, from the next time on."""
    _change(which, "enable_recurring_run", "resumed", host, token, namespace)


@schedule.command()
def delete(which: Schedule, host: Host, token: Token = None, namespace: Namespace = None) -> None:
    """Remove a schedule; its runs stay."""
    _change(which, "delete_recurring_run", "deleted", host, token, namespace)


def _change(which: str, method: str, done: str, host: str, token: str | None, namespace: str | None) -> None:
    from pipelines.connection import asking, connect

    client = connect(host, token, namespace)
    from pipelines.submit import schedule_named

    found = schedule_named(client, host, which)
    with asking(host):
        getattr(client, method)(found.recurring_run_id)
    typer.echo(f"schedule {found.display_name}: {done}")


def _plain(one: Any) -> dict[str, str]:
    cron = one.trigger.cron_schedule.cron if one.trigger and one.trigger.cron_schedule else ""
    return {
        "id": one.recurring_run_id,
        "name": one.display_name,
        "cron": cron,
        "state": "paused" if one.status == "DISABLED" or one.mode == "DISABLE" else "active",
    }
