"""The command line: the whole chain, a verb a step, and what Kubeflow needs; heavy imports wait for their verb."""

import os
import sys
from typing import NoReturn

import typer

from uniscale.cli import data, experiments, kubeflow, local, monitoring, registry, service, steps, studies

# Set before any dependency is imported, here or in a child process: none of them phones home, and threads that wait
# for work sleep instead of spinning (on busy cores, spinning made training ten times slower).
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "DVC_NO_ANALYTICS": "1",
    "FEAST_USAGE": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_WAIT_POLICY": "PASSIVE",
}

app = typer.Typer(
    help="Search ranking from logs to a monitored service: UniScale (ES3 + HHSFT) in a Kubeflow pipeline.\n\n"
    "Start with `uniscale run`. Every value is a key of params.yaml and is changed with --set section.key=value. "
    "Exit codes: 0 completed and promoted, 3 completed and the candidate rejected, 4 an experiment that is not to be "
    "believed, 2 wrong use, 1 any other failure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
local.register(app)
steps.register(app)
data.register(app)
studies.register(app)
registry.register(app)
service.register(app)
experiments.register(app)
monitoring.register(app)
kubeflow.register(app)


def main() -> None:
    """Entry point: user errors end with one clear message, never a traceback."""
    from uniscale.errors import UniscaleError

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except UniscaleError as error:
        _end(str(error))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror}; give a path that is there and that you may use")


def _end(message: str) -> NoReturn:
    """Say what was wrong and end with 1; a message is text, not markup: it quotes paths, lists, `package[extra]`."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text.assemble(("error:", "bold red"), f" {message}"), soft_wrap=True)
    sys.exit(1)
