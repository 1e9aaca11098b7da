"""A verb a step: the same functions that the pipeline's components call, on local folders."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uniscale.cli.options import ConfigPath, Deployment, Logs, Out, Rows, Settings, Tables, load


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (logs, ingest, features, samples, flat, train, evaluate, drift, cost, gate, package, smoke):
        app.command(rich_help_panel="Steps")(verb)


def call(step: str, /, **arguments: Any) -> Any:
    """Run a component's function here: paths become artifacts, configuration sections become JSON."""
    import importlib

    from kfp import dsl

    def argument(value: Any) -> Any:
        if isinstance(value, Path):
            return dsl.Artifact(uri=str(value.resolve()))
        return value.model_dump_json() if hasattr(value, "model_dump_json") else value

    component = getattr(importlib.import_module(f"components.{step}"), step)
    return component.python_func(**{key: argument(value) for key, value in arguments.items()})


def logs(out: Out, settings: Settings = None, config: ConfigPath = None) -> None:
    """Write raw logs in the contract: simulate them, or adapt a source (`--set data.source=…`)."""
    c = load(config, settings)
    call("logs", seed=c.seed, data=c.data, simulation=c.simulation, input_hash="", raw=out)


def ingest(logs: Logs, out: Out, settings: Settings = None, config: ConfigPath = None) -> None:
    """Validate logs; violating rows go to quarantine with their reason."""
    c = load(config, settings)
    call("ingest", seed=c.seed, rules=c.ingest, raw=logs, clean=out)


def features(
    logs: Logs,
    out: Out,
    previous: Annotated[
        Path | None, typer.Option(help="Feature folder whose text encoder and numbering of items are kept.")
    ] = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Build point-in-time feature tables, apply the Feast repository and fill its online store."""
    c = load(config, settings)
    if previous is not None:
        from features.build import build_features

        build_features(c, logs, out, previous)
        return
    call("features", seed=c.seed, settings=c.features, samples=c.samples, clean=logs, tables=out)


def samples(
    logs: Logs,
    tables: Tables,
    out: Out,
    previous: Annotated[
        Path | None, typer.Option(help="Samples folder of an earlier build: only days that the logs changed are built.")
    ] = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Build list-wise samples by ES3 on Spark."""
    c = load(config, settings)
    if previous is not None:
        from features.es3.build import build_samples

        build_samples(c, logs, tables, out, previous=previous)
        return
    sections = {"settings": c.samples, "features": c.features, "spark": c.spark}
    call("samples", seed=c.seed, **sections, clean=logs, tables=tables, rows=out)


def flat(rows: Rows, out: Annotated[Path, typer.Option(help="Parquet file to write.")]) -> None:
    """Write list-wise samples as a flat file, a row a candidate, for tools that need it."""
    from features.es3.flat import write_flat

    size, listwise = write_flat(rows, out), sum(file.stat().st_size for file in (rows / "rows").rglob("*.parquet"))
    typer.echo(f"written to {out}: {size:,} bytes, {listwise:,} list-wise (ratio {listwise / size:.3f})")


def train(
    rows: Rows,
    out: Out,
    model: Annotated[str | None, typer.Option(help="An entry of the model zoo.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/work"),
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Train a model on samples; a training that was cut off goes on from its last checkpoint."""
    c = load(config, settings, model__name=model)
    call("train", seed=c.seed, settings=c.train, model_sizes=c.model, work=str(work), rows=rows, model=out)


def evaluate(
    rows: Rows,
    candidate: Annotated[Path, typer.Option(help="Model folder.")],
    champion: Annotated[Path, typer.Option(help="Model folder to compare with.")],
    logs: Logs,
    out: Out,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Measure candidate and champion on the same search-exposed test rows."""
    c = load(config, settings)
    folders = {"raw": logs, "rows": rows, "candidate": candidate, "champion": champion, "measured": out}
    call("evaluate", seed=c.seed, gate=c.gate, train=c.train, **folders)


def gate(
    out: Out,
    measured: Annotated[Path | None, typer.Option(help="Output of `evaluate`.")] = None,
    drifted: Annotated[Path | None, typer.Option(help="Output of `drift`.")] = None,
    costs: Annotated[Path | None, typer.Option(help="Output of `cost`.")] = None,
    candidate: Annotated[Path | None, typer.Option(help="Model folder, to be measured here.")] = None,
    champion: Annotated[Path | None, typer.Option(help="Model folder that the candidate has to beat.")] = None,
    rows: Annotated[Path | None, typer.Option("--samples", help="Samples folder to measure on.")] = None,
    logs: Annotated[Path | None, typer.Option(help="Log folder, for the truth of a simulation.")] = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Decide whether the candidate may be promoted: exits with 0 for promote and 3 for reject.

    Give either what `evaluate`, `drift` and `cost` wrote, or two models, samples and logs: then these steps run first,
    into folders of their names below --out, and the decision goes to --out/decision.
    """
    from uniscale.errors import ConfigError

    c = load(config, settings)
    if candidate and champion and rows and logs and not (measured or drifted or costs):
        models: dict[str, Any] = {"rows": rows, "candidate": candidate, "champion": champion}
        measured, drifted, costs, out = (out / name for name in ("evaluate", "drift", "cost", "decision"))
        call("evaluate", seed=c.seed, gate=c.gate, train=c.train, raw=logs, **models, measured=measured)
        call("drift", seed=c.seed, settings=c.drift, rows=rows, measured=measured, report=drifted)
        call("cost", seed=c.seed, settings=c.cost, **models, costs=costs)
    elif not (measured and drifted and costs) or candidate or champion or rows or logs:
        raise ConfigError(
            "gate takes either --measured, --drifted and --costs, or --candidate, --champion, --samples and --logs"
        )
    decision = call("gate", seed=c.seed, rules=c.gate, measured=measured, drifted=drifted, costs=costs, decision=out)
    typer.echo(f"{decision}: see {out}")
    raise typer.Exit(0 if decision == "promote" else 3)


def drift(
    rows: Rows,
    measured: Annotated[Path, typer.Option(help="Output of `evaluate`, for the predictions.")],
    out: Out,
    workspace: Annotated[Path | None, typer.Option(help="Workspace of `evidently ui`, which gets the report.")] = None,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Compare the test days with the training days."""
    from monitoring.drift import drift as compare

    compare(load(config, settings), rows, out, measured / "predictions.parquet", workspace)


def cost(
    rows: Rows,
    candidate: Annotated[Path, typer.Option(help="Model folder.")],
    champion: Annotated[Path, typer.Option(help="Model folder to compare with.")],
    out: Out,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Measure latency and memory of candidate and champion on the reference load."""
    c = load(config, settings)
    call("cost", seed=c.seed, settings=c.cost, rows=rows, candidate=candidate, champion=champion, costs=out)


def package(
    tables: Tables,
    control: Annotated[Path, typer.Option(help="Model folder of the control variant.")],
    treatment: Annotated[Path, typer.Option(help="Model folder of the treatment variant.")],
    out: Out,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Build an immutable deployment: FP16 weights, online store, Bento."""
    c = load(config, settings)
    sections = {"serving": c.serving, "experiment": c.experiment, "features": c.features}
    versions = {"control_version": control.name, "treatment_version": treatment.name}
    folders = {"tables": tables, "control": control, "treatment": treatment, "deployment": out}
    call("package", seed=c.seed, **sections, **versions, **folders)


def smoke(deployment: Deployment, out: Out, settings: Settings = None, config: ConfigPath = None) -> None:
    """Start a deployment on loopback, check it over HTTP, measure latency, stop it."""
    c = load(config, settings)
    call("smoke", seed=c.seed, serving=c.serving, deployment=deployment, checked=out)
