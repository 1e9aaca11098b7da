"""Options that many verbs share, and the console they print to."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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


def load(config: Path | None, settings: list[str] | None, **overrides: str | None) -> "Config":
    """The configuration of a verb: file, then --set, then the verb's own options (dots written as two underscores)."""
    from uniscale.config import load_config

    named = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items() if value is not None]
    return load_config(config, [*(settings or []), *named])


def console() -> "Console":
    """Bound to today's standard output, because the runner redirects the name while the pipeline runs."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
