"""Options that many verbs share, and the console they print to."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from uniscale.config import Config

ConfigPath = Annotated[
    Path | None, typer.Option("--config", help="A params.yaml of your own; the embedded one if absent.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, as often as needed.")]
Source = Annotated[
    str | None, typer.Option(help="simulation, journey, expedia, qilin, kuaisar, or logs (in the contract).")
]
Input = Annotated[Path | None, typer.Option(help="Path of the raw input, for any but simulation and journey.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Logs = Annotated[Path, typer.Option(help="Log folder in the contract.")]
Tables = Annotated[Path, typer.Option("--features", help="Feature folder.")]
Rows = Annotated[Path, typer.Option("--samples", help="Samples folder.")]
Deployment = Annotated[Path, typer.Option(help="Deployment folder.")]

Pipeline = Annotated[
    str, typer.Option("--pipeline", help="training, continuous, monitoring, sweep or backfill (docs/pipelines.md).")
]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", help="name=value of the pipeline's own parameters, as often as needed.")
]


def load(config: Path | None, settings: list[str] | None, **overrides: str | None) -> "Config":
    """The configuration of a verb: file, then --set, then the verb's own options (dots written as two underscores)."""
    from uniscale.config import load_config

    named = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items() if value is not None]
    return load_config(config, [*(settings or []), *named])


def parameters_of(given: list[str] | None) -> dict[str, Any]:
    """The parameters of `--param`, values in YAML; days and numbers that a text parameter takes are quoted there.

    Raises:
        ConfigError: not of the form name=value.
    """
    import yaml

    from uniscale.errors import ConfigError

    found = {}
    for pair in given or []:
        name, separator, value = pair.partition("=")
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            read = value
        if not separator:
            raise ConfigError(f"--param takes name=value, got {pair!r}, e.g. --param first=2026-02-01")
        found[name.strip()] = [str(one) for one in read] if isinstance(read, list) else value
    return found


def console() -> "Console":
    """Bound to today's standard output, because the runner redirects the name while the pipeline runs."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
