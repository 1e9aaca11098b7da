"""Verbs that answer a question over many trainings: which system is better, and by how much."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniscale.cli.options import ConfigPath, Input, Settings, Source, load
from uniscale.cli.steps import call

if TYPE_CHECKING:
    from uniscale.config import Config


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(rich_help_panel="Studies")(compare)
    app.command(rich_help_panel="Studies")(scale)


def compare(
    systems: Annotated[
        list[str] | None, typer.Argument(help="model@rows[,key=value…], the base first: dlrm_mlp@search hhsft@entire.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="A table of the papers in place of systems, e.g. uniscale-4.")
    ] = None,
    data: Source = None,
    input: Input = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many; on simulated data each has a market of its own.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of data, models and results.")] = Path("runs/compare"),
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Compare models and training rows on the same test rows, with several seeds.

    Writes comparison.json, .md and .html below the folder's name for the table. What is finished is not done again.
    """
    from models.compare import Data, System
    from models.compare import compare as run
    from models.compare_page import markdown, page
    from models.paper_tables import TABLES
    from uniscale.artifacts import write_json
    from uniscale.config import nearest, override
    from uniscale.errors import ConfigError

    c = load(config, settings, data__source=data, data__input=str(input.resolve()) if input else None)
    if bool(systems) == bool(table):
        raise ConfigError("compare takes either systems, e.g. dlrm_mlp@search hhsft@entire, or --table")
    if table and table not in TABLES:
        raise ConfigError(f"table {table!r} is unknown{nearest(table, list(TABLES))}")
    chosen = TABLES[table] if table else [System.parse(text) for text in systems or []]
    of_seed = {seed: override(c, [f"seed={seed}"]) for seed in range(c.seed, c.seed + seeds)}
    simulated = c.data.source == "simulation"  # only a simulation has other data for another seed
    prepared = {seed: Data(*_prepared(one if simulated else c, out)) for seed, one in of_seed.items()}
    result = run(c, prepared, chosen, out)
    name = table or "systems"
    target = out / f"{name}-{c.data.source}"
    write_json(target / "comparison.json", result)
    (target / "comparison.md").write_text(markdown(result))
    (target / "comparison.html").write_text(page(result, f"{name} on {c.data.source}"))
    typer.echo(markdown(result))
    typer.echo(f"written to {target}")


def scale(
    system: Annotated[str, typer.Argument(help="model@rows[,key=value…], what is scaled, e.g. est@search.")],
    axis: Annotated[str, typer.Option(help="depth, width, length (behaviours) or data (share of training days).")],
    values: Annotated[
        str | None, typer.Option(help="Places of the axis, e.g. 1,2,4; a small default if absent.")
    ] = None,
    base: Annotated[str, typer.Option(help="What gains are over.")] = "dlrm_mlp@search",
    data: Annotated[str | None, typer.Option(help="simulation, journey, expedia, or logs (in the contract).")] = None,
    input: Annotated[Path | None, typer.Option(help="Path of the raw input, for expedia and logs.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many; on simulated data each has a market of its own.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of data, models and results.")] = Path("runs/scale"),
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Sweep a model's size or data and fit the gain in GAUC as a power law of its cost.

    Writes scaling.json, .md and .html. What is finished is not done again.
    """
    from models.compare import Data, System
    from models.scaling import DEFAULTS, markdown, plots, setting_of, sweep
    from uniscale.artifacts import write_json
    from uniscale.config import override
    from uniscale.errors import ConfigError

    c = load(config, settings, data__source=data, data__input=str(input.resolve()) if input else None)
    scaled, over = System.parse(system), System.parse(base)
    setting_of(scaled.model, axis, 1)  # type: ignore[arg-type]  # a wrong axis is refused here
    try:
        places = [float(value) for value in values.split(",")] if values else list(DEFAULTS[axis])  # type: ignore[index]
    except ValueError:
        raise ConfigError(f"--values takes numbers with commas between, e.g. 1,2,4; got {values!r}") from None
    of_seed = {seed: override(c, [f"seed={seed}"]) for seed in range(c.seed, c.seed + seeds)}
    simulated = c.data.source == "simulation"
    prepared = {seed: Data(*_prepared(one if simulated else c, out)) for seed, one in of_seed.items()}
    found = sweep(c, prepared, scaled, over, axis, places, out)  # type: ignore[arg-type]
    target = out / f"{scaled.model}-{axis}-{c.data.source}"
    write_json(target / "scaling.json", found)
    (target / "scaling.md").write_text(markdown(found))
    (target / "scaling.html").write_text(plots(found))
    typer.echo(markdown(found))
    typer.echo(f"written to {target}")


def _prepared(config: "Config", out: Path) -> tuple[Path, Path | None]:
    """Samples of a configuration, built unless they are there, and the truth of a simulation."""
    from uniscale.artifacts import source_hash

    sections = ("seed", "data", "simulation", "ingest", "features", "spark", "samples")
    identity = f"{config.model_dump_json(include=set(sections))} {source_hash()}"
    folder = out / "data" / f"{config.data.source}-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"
    raw, clean, tables, rows = (folder / name for name in ("logs", "clean", "features", "samples"))
    if not raw.exists():
        call("logs", seed=config.seed, data=config.data, simulation=config.simulation, input_hash="", raw=raw)
    if not clean.exists():
        call("ingest", seed=config.seed, rules=config.ingest, raw=raw, clean=clean)
    if not tables.exists():
        call("features", seed=config.seed, settings=config.features, samples=config.samples, clean=clean, tables=tables)
    if not rows.exists():
        of_samples = {"settings": config.samples, "features": config.features, "spark": config.spark}
        call("samples", seed=config.seed, **of_samples, clean=clean, tables=tables, rows=rows)
    truth = raw / "truth"
    return rows, truth if truth.exists() else None
