"""Verbs of online experiments: the pipeline's step, analysis of one described in a YAML file, its life."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from uniscale.cli.options import ConfigPath, Deployment, Logs, Out, Rows, Settings, load
from uniscale.cli.steps import call

NOT_BELIEVED = 4

Experiment = Annotated[
    Path, typer.Option("--config", help="YAML of the experiment, e.g. docs/examples/cookie_cats.yaml.")
]
Name = Annotated[str, typer.Argument(help="Name of the experiment.")]
Book = Annotated[Path, typer.Option(help="Folder of the experiments.")]
Service = Annotated[str, typer.Option(envvar="UNISCALE_SERVICE", help="URL of the service whose traffic is split.")]
Why = Annotated[str, typer.Option(help="Reason, kept on record.")]
OnSpark = Annotated[bool, typer.Option("--spark", help="Aggregate on Spark (section spark; --set); source logs.")]
BOOK = Path("runs/experiments")


def register(app: typer.Typer) -> None:
    """Add the verbs as `experiment …`."""
    verbs = typer.Typer(no_args_is_help=True, help="Online experiments.")
    for verb in (run, analyze, interleaving, off_policy, start, status, ramp, check, stop, apply):
        verbs.command()(verb)
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
    spark: OnSpark = False,
    settings: Settings = None,
) -> None:
    """Analyse an experiment from its data alone and write its page.

    Exits with 4 when a check blocks, because then the lifts mean nothing; with --strict also when one warns.
    """
    from monitoring.definition import load_definition
    from monitoring.experiment import analyse_lists, analyse_logs, analyse_table
    from uniscale.errors import ConfigError

    definition = load_definition(config)
    if spark and (definition.source.kind != "logs" or definition.mode == "interleave"):
        raise ConfigError(f"--spark aggregates logs of mode split; {config} has another source or mode: leave it out")
    if definition.mode == "interleave":
        result = analyse_lists(definition, data / "serving_log", data / "logs", out)
    elif definition.source.kind == "logs":
        with _session(spark, settings) as session:
            result = analyse_logs(
                definition, data / "serving_log", data / "logs", out, before, treatment, spark=session
            )
    else:
        result = analyse_table(definition, data, out, treatment)
    noticed = _say(result)
    if definition.mode == "split":
        typer.echo(f"page: {out / 'experiment.html'}")
    if result["verdict"] == "invalid" or (strict and noticed):
        raise typer.Exit(NOT_BELIEVED)


def interleaving(
    lists: Annotated[Path, typer.Option(help="Parquet: request_id, user_id, item_ids, teams (`team_draft`).")],
    logs: Logs,
    treatment: Annotated[str, typer.Option(help="The team under test.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Say which of two rankings users prefer, from clicks on interleaved lists.

    Exits with 4 when the draft was not fair.
    """
    from monitoring.interleaving import analyse_interleaving
    from uniscale.artifacts import write_json

    found = analyse_interleaving(lists, logs, treatment)
    if out is not None:
        write_json(out, found)
    typer.echo(found["statement"])
    typer.echo("requests " + ", ".join(f"{how} {count:,}" for how, count in found["requests"].items()))
    if not found["fair"]:
        raise typer.Exit(NOT_BELIEVED)


def off_policy(
    data: Annotated[Path, typer.Option(help="Folder with serving_log/ (written with exploration) and logs/.")],
    orders: Annotated[Path | None, typer.Option(help="Parquet of the orders to judge: request_id, item_ids.")] = None,
    shadow: Annotated[str | None, typer.Option(help="A shadow variant, whose logged orders are judged.")] = None,
    variant: Annotated[str | None, typer.Option(help="Whose answers are used; all unless given.")] = None,
    positions: Annotated[int, typer.Option(min=1, help="First positions that count.")] = 3,
    clip: Annotated[float, typer.Option(help="Greatest weight; biases the estimates towards less.")] = float("inf"),
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Estimate the clicks that other orders of the served requests would have had (IPS, SNIPS, DR).

    Exits with 4 when the log has too little support, or propensities that do not fit it.
    """
    from monitoring.counterfactual_logs import in_words, judge_orders
    from uniscale.artifacts import write_json

    found = judge_orders(data / "serving_log", data / "logs", orders, shadow, variant, positions, clip)
    if out is not None:
        write_json(out, found)
    typer.echo(in_words(found))
    if found["withheld"]:
        raise typer.Exit(NOT_BELIEVED)


def start(config: Experiment, service: Service, why: Why = "", book: Book = BOOK) -> None:
    """Put an experiment on record and send the service its mode and the first share of its ramp."""
    from monitoring.definition import load_definition
    from monitoring.experiment_book import ExperimentBook

    definition, kept = load_definition(config), ExperimentBook(book)
    _apply(kept, definition.name, kept.start(definition, datetime.now(UTC), why).weights, service)


def ramp(name: Name, service: Service, why: Why = "", book: Book = BOOK) -> None:
    """Go to the next share of the ramp."""
    from monitoring.experiment_book import ExperimentBook

    kept = ExperimentBook(book)
    _apply(kept, name, kept.ramp(name, datetime.now(UTC), why).weights, service)


def stop(name: Name, service: Service, why: Why = "", book: Book = BOOK) -> None:
    """End an experiment: the control serves everyone."""
    from monitoring.experiment_book import ExperimentBook

    kept = ExperimentBook(book)
    _apply(kept, name, kept.end(name, datetime.now(UTC), why).weights, service)


def apply(name: Name, service: Service, book: Book = BOOK) -> None:
    """Tell the service the weights on record again, after it did not confirm them or was started anew."""
    from monitoring.experiment_book import ExperimentBook

    kept = ExperimentBook(book)
    kept.definition(name)
    _apply(kept, name, kept.steps(name)[-1].weights, service)


def status(
    name: Annotated[str | None, typer.Argument(help="One experiment; all of them if absent.")] = None,
    book: Book = BOOK,
) -> None:
    """Say how experiments stand, and write their index page."""
    from monitoring.experiment_book import ExperimentBook
    from monitoring.experiment_index import overview, write_index

    kept = ExperimentBook(book)
    if name is not None:
        kept.definition(name)
    for row in overview(kept):
        if name in (None, row["name"]):
            typer.echo(f"{row['name']}: {row['status']}, {row['share']} treated since {row['began']}; {row['verdict']}")
            typer.echo(f"  {row['last']}")
    if kept.names():
        typer.echo(f"page: {write_index(kept)}")
    else:
        typer.echo(f"no experiment in {book}: `uniscale experiment start` begins one")


def check(
    name: Name,
    data: Annotated[Path, typer.Option(help="Folder with serving_log/ and logs/.")],
    service: Service,
    registry: Annotated[str | None, typer.Option(help="Registry whose champion a roll-back unseats.")] = None,
    book: Book = BOOK,
    spark: OnSpark = False,
    settings: Settings = None,
) -> None:
    """Analyse a running experiment since its last change of weights; roll it back where the analysis says so.

    Exits with 4 when the analysis is invalid or the experiment was rolled back.
    """
    from monitoring.experiment_book import ExperimentBook
    from monitoring.experiment_check import check_experiment
    from uniscale.registry import Registry

    store = Registry(registry) if registry else None
    logs = (data / "serving_log", data / "logs")
    kept = ExperimentBook(book)
    now, traffic = datetime.now(UTC), _traffic(service)
    with _session(spark, settings) as session:
        result, post_mortem = check_experiment(kept, name, logs, traffic, store, now, session)
    _say(result)
    page = f"{book / name / 'analysis' / 'experiment.html'}, index: " if result["mode"] != "interleave" else ""
    typer.echo(f"page: {page}{book / 'index.html'}")
    if post_mortem:
        typer.echo(f"rolled back: {post_mortem}")
    if post_mortem or result["verdict"] == "invalid":
        raise typer.Exit(NOT_BELIEVED)


@contextmanager
def _session(wanted: bool, settings: list[str] | None) -> Iterator[Any]:
    """A Spark session of the section `spark`, None where it is not wanted."""
    if not wanted:
        yield None
        return
    from features.es3.session import spark_session

    with spark_session(load(None, settings).spark) as session:
        yield session


def _traffic(service: str) -> Any:
    """The service, asked with the key it asks for (UNISCALE_API_KEY, as the service itself reads it)."""
    from monitoring.rollback import HttpTraffic

    return HttpTraffic(service, os.environ.get("UNISCALE_API_KEY"))


def _apply(book: Any, name: str, weights: dict[str, float], service: str) -> None:
    """Tell the service, then write the index."""
    from monitoring.experiment_index import write_index
    from monitoring.rollback import tell

    tell(_traffic(service), book.definition(name), weights)
    shares = ", ".join(f"{variant} {share:.0%}" for variant, share in weights.items())
    typer.echo(f"{name}: {shares}\npage: {write_index(book)}")


def _say(result: dict[str, Any]) -> int:
    """Print a result; gives the number of checks that did not pass."""
    from monitoring.page import lift_in_words

    typer.echo(f"{result['name']}: {result['verdict']}. {result['headline']}.\n{result['reason']}")
    if result["mode"] == "interleave":
        typer.echo("requests " + ", ".join(f"{how} {count:,}" for how, count in result["requests"].items()))
        return int(not result["fair"])
    typer.echo(result["source"]["statement"])
    failed = [check for check in result["checks"] if check["status"] != "pass"]
    for check in failed:
        typer.echo(f"{'WARNING' if check['status'] == 'warn' else 'BLOCKED'} {check['name']}: {check['statement']}")
    for row in result["metrics"]:
        typer.echo(f"  {row['label']}: {lift_in_words(row)}")
    for item in result["guardrails"]:
        typer.echo(f"  guardrail {item['status']}: {item['statement']}")
    return len(failed)
