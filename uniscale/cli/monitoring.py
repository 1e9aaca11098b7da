"""Verbs of the loop behind a served model: publish drift, next training days, skew, and whether to train again."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from uniscale.cli.options import ConfigPath, Logs, Out, Rows, Settings, load

NOT_NOW, SKEWED = 3, 4

ServingLog = Annotated[Path, typer.Option(help="Folder of the serving log.")]
History = Annotated[Path, typer.Option(help="Folder of the drift history.")]
Now = Annotated[datetime | None, typer.Option(help="The present, UTC; the clock's unless given.")]


def register(app: typer.Typer) -> None:
    """Add the verbs as `monitor …`."""
    verbs = typer.Typer(no_args_is_help=True, help="The loop behind a served model.")
    for verb in (publish, next_day, skew, retrain):
        verbs.command()(verb)
    app.add_typer(verbs, name="monitor", rich_help_panel="Steps")


def publish(
    drift: Annotated[Path, typer.Option(help="What the step `drift` wrote.")],
    history: History = Path("runs/drift"),
    textfiles: Annotated[Path | None, typer.Option(help="Folder of a node exporter's textfile collector.")] = None,
    gateway: Annotated[str | None, typer.Option(help="URL of a Prometheus Pushgateway.")] = None,
    skew: Annotated[Path | None, typer.Option(help="What `monitor skew --out` or the step wrote.")] = None,
) -> None:
    """Keep a drift result in the history and bring its gauges, and those of the skew, to Prometheus."""
    from monitoring.publish import publish

    typer.echo(f"page: {publish(drift, history, textfiles, gateway, skew)}")


def next_day(
    serving_log: ServingLog,
    logs: Logs,
    out: Out,
    events_until: Annotated[datetime | None, typer.Option(help="How far the feed of events has come, UTC.")] = None,
    now: Now = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Write the served days whose labels are mature as a log folder to train on."""
    from monitoring.next_day import write_next_days

    until = None if events_until is None else events_until.replace(tzinfo=UTC)
    found = write_next_days(serving_log, logs, out, _clock(now), _window(config, settings), until)
    rows = ", ".join(f"{count:,} {name}" for name, count in found["rows"].items())
    typer.echo(f"{len(found['days'])} days written, {found['days'][0]} to {found['days'][-1]}: {rows}")
    typer.echo(f"waiting for their labels: {', '.join(found['waiting']) or 'none'}")


def skew(
    serving_log: ServingLog,
    rows: Rows,
    out: Annotated[Path | None, typer.Option(help="Folder to write skew.json into, for `publish`.")] = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Compare the features of served requests with those of the samples; exits with 4 and names those that differ."""
    from monitoring.skew import feature_skew, skewed
    from uniscale.artifacts import write_json
    from uniscale.errors import DataError

    found = feature_skew(serving_log, rows, load(config, settings).drift.skew_warn)
    if out is not None:
        write_json(out / "skew.json", found)
    if found["why_not"]:
        raise DataError(found["why_not"])
    typer.echo(
        f"{found['requests']:,} requests and {found['items']:,} items, {len(found['features'])} features compared"
    )
    for one in skewed(found):
        typer.echo(one)
    if skewed(found):
        raise typer.Exit(SKEWED)


def retrain(
    days: Annotated[Path, typer.Option(help="Log folder that `monitor next-day` wrote.")],
    registry: Annotated[str, typer.Option(help="Model registry, whose versions say when a model was trained.")],
    history: History = Path("runs/drift"),
    book: Annotated[Path | None, typer.Option(help="Folder of the experiments; a running one forbids.")] = None,
    now: Now = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Say whether to train again, by drift or by age and within the budget: exits with 0 to train, with 3 not to."""
    from monitoring.experiment_book import ExperimentBook
    from monitoring.retraining import Policy, choose_from
    from uniscale.registry import Registry

    c = load(config, settings)
    runs = {version.run_id: version.registered_at for version in Registry(registry).versions()}
    trained = sorted(datetime.fromisoformat(at).date() for at in runs.values())
    kept = ExperimentBook(book) if book else None
    running = kept is not None and any(kept.status(name) == "running" for name in kept.names())
    policy, today = Policy(**c.retraining.model_dump()), _clock(now).date()
    found = choose_from(policy, today, trained, history, days, _window(config, settings), running)
    typer.echo(f"{'train' if found.train else 'do not train'}: {found.why}")
    raise typer.Exit(0 if found.train else NOT_NOW)


def _clock(now: datetime | None) -> datetime:
    return datetime.now(UTC) if now is None else now.replace(tzinfo=UTC)


def _window(config: Path | None, settings: list[str] | None) -> float:
    """The longest attribution window, days."""
    samples = load(config, settings).samples
    return max(samples.conversion_window_days, samples.click_window_hours / 24)
