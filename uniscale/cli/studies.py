"""Verbs that answer a question over many trainings: which system is better, and by how much."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    rates: Annotated[
        str | None, typer.Option(help="Learning rates tried for every system, e.g. 3e-4,1e-3,3e-3; validation chooses.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1000, help="Dense parameters that every system is given by its width.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of data, models and results.")] = Path("runs/compare"),
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Compare models and training rows on the same test rows, with several seeds.

    Writes comparison.json, .md and .html (attention.… for a figure of attention) below a folder with the table's name.
    What is finished is not done again.
    """
    from models.attention_tables import FIGURES, attention_table
    from models.attention_tables import markdown as attention_markdown
    from models.attention_tables import page as attention_page
    from models.budget import sized
    from models.compare import Data, System, Table
    from models.compare import compare as run
    from models.compare_page import markdown, page
    from models.paper_tables import TABLES
    from uniscale.config import nearest, override
    from uniscale.errors import ConfigError

    c = load(config, settings, data__source=data, data__input=str(input.resolve()) if input else None)
    if bool(systems) == bool(table):
        raise ConfigError("compare takes either systems, e.g. dlrm_mlp@search hhsft@entire, or --table")
    known = [*TABLES, *FIGURES]
    if table and table not in known:
        raise ConfigError(f"table {table!r} is unknown{nearest(table, known)}; known are {', '.join(known)}")
    chosen = TABLES.get(table or "", Table(tuple(System.parse(text) for text in systems or [])))
    tried = _numbers("--rates", rates)
    if table in FIGURES and (tried or budget):
        raise ConfigError(f"{table} looks at one system: --rates and --budget have nothing to compare")
    for system in chosen.systems:
        override(c, system.settings)  # a wrong switch is refused before any data is built
    of_seed = {seed: override(c, [f"seed={seed}"]) for seed in range(c.seed, c.seed + seeds)}
    simulated = c.data.source == "simulation"  # only a simulation has other data for another seed
    prepared = {seed: Data(*_prepared(one if simulated else c, out)) for seed, one in of_seed.items()}
    title = f"{table or 'systems'} on {c.data.source}"
    target = out / title.replace(" on ", "-")
    if table in FIGURES:
        looked = attention_table(c, prepared, table, out)
        _write(target, "attention", looked, attention_markdown(looked), attention_page(looked, title))
        return
    if budget:
        samples = prepared[c.seed].samples
        chosen = replace(chosen, systems=tuple(sized(c, samples, system, budget) for system in chosen.systems))
    result = run(c, prepared, chosen, out, tried)
    _write(target, "comparison", result, markdown(result), page(result, title))


def _numbers(option: str, text: str | None) -> list[float]:
    from uniscale.errors import ConfigError

    try:
        return [float(value) for value in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(f"{option} takes numbers with commas between, e.g. 1,2,4; got {text!r}") from None


def _write(target: Path, name: str, result: dict[str, Any], markdown: str, html: str) -> None:
    """A result as JSON, Markdown and HTML, the Markdown shown too."""
    from uniscale.artifacts import write_json

    write_json(target / f"{name}.json", result)
    (target / f"{name}.md").write_text(markdown)
    (target / f"{name}.html").write_text(html)
    typer.echo(markdown)
    typer.echo(f"written to {target}")


def scale(
    system: Annotated[str, typer.Argument(help="model@rows[,key=value…], what is scaled, e.g. est@search.")],
    axis: Annotated[
        str,
        typer.Option(
            help="depth, width, length (behaviours), data (share of training days) or a key, e.g. model.hhsft.gfa_dim."
        ),
    ],
    values: Annotated[
        str | None, typer.Option(help="Places of the axis, e.g. 1,2,4; a small default if absent.")
    ] = None,
    base: Annotated[str, typer.Option(help="What gains are over.")] = "dlrm_mlp@search",
    measure: Annotated[str, typer.Option(help="Of the first task: gauc, auc, uauc, qauc, hr@5 or ndcg@10.")] = "gauc",
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
    from uniscale.config import override
    from uniscale.errors import ConfigError

    c = load(config, settings, data__source=data, data__input=str(input.resolve()) if input else None)
    scaled, over = System.parse(system), System.parse(base)
    setting_of(scaled.model, axis, 1)  # a wrong axis is refused here
    places = _numbers("--values", values) or list(DEFAULTS.get(axis, ()))
    if not places:
        raise ConfigError(f"axis {axis} has no default places: give some by --values, e.g. 16,32,64")
    for settings_of in (over.settings, *((*scaled.settings, *setting_of(scaled.model, axis, at)) for at in places)):
        override(c, settings_of)
    of_seed = {seed: override(c, [f"seed={seed}"]) for seed in range(c.seed, c.seed + seeds)}
    simulated = c.data.source == "simulation"
    prepared = {seed: Data(*_prepared(one if simulated else c, out)) for seed, one in of_seed.items()}
    found = sweep(c, prepared, scaled, over, axis, places, out, measure)
    target = out / f"{scaled.model}-{scaled.subset}-{axis}-{c.data.source}"
    _write(target, "scaling", found, markdown(found), plots(found))


def _prepared(config: "Config", out: Path) -> tuple[Path, Path | None]:
    """Samples of a configuration, built unless they are there, and the truth of a simulation."""
    from models.truth import truth_of
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
    return rows, truth_of(raw)
