"""Verbs for the model registry: what there is, what was decided, what a version was made from, promotion and return."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uniscale.cli.options import console

if TYPE_CHECKING:
    from uniscale.promotion_log import Entry
    from uniscale.registry import Registry, Version

Where = Annotated[str, typer.Option("--registry", envvar="UNISCALE_REGISTRY", help="Folder or URL of the registry.")]
Name = Annotated[str | None, typer.Option(help="The registered model; needed where a registry holds several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Reason = Annotated[str, typer.Option(help="Why; kept on record.")]
DEFAULT = "runs/registry"

verbs = typer.Typer(help="Models: versions, lineage, promotion, rollback.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(verbs, name="registry")


@verbs.command(name="list")
def list_versions(registry: Where = DEFAULT, name: Name = None, as_json: AsJson = False) -> None:
    """Every version: whether it is champion, what the gate said, where it comes from."""
    store = _open(registry, name)
    champion = store.champion()
    seated = champion.number if champion else None
    rows = [{**_plain(version), "champion": version.number == seated} for version in store.versions()]
    columns = ["number", "champion", "verdict", "run_id", "data_hash", "content_hash", "registered_at"]
    _show(rows, as_json, f"{store.name}, oldest first", columns)


@verbs.command()
def history(registry: Where = DEFAULT, name: Name = None, as_json: AsJson = False) -> None:
    """Every decision: what was registered, promoted, forced or rolled back, by whom, when, and why."""
    store = _open(registry, name)
    _show(_decisions(store.history()), as_json, f"decisions on {store.name}, oldest first")


@verbs.command()
def promote(
    version: Annotated[str, typer.Argument(help="Its number, run, or the first digits of its content hash.")],
    force: Annotated[bool, typer.Option("--force", help="Without a passing gate record; asks for --reason.")] = False,
    reason: Reason = "",
    registry: Where = DEFAULT,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Seat a version as champion; refused unless a gate passed it against the present champion."""
    store = _open(registry, name)
    _seated(store, store.promote(store.find(version).number, force=force, reason=reason), as_json)


@verbs.command()
def rollback(reason: Reason = "", registry: Where = DEFAULT, name: Name = None, as_json: AsJson = False) -> None:
    """Give the seat back to the champion before the present one."""
    store = _open(registry, name)
    _seated(store, store.rollback(reason), as_json)


@verbs.command()
def fetch(
    version: Annotated[str, typer.Argument(help="Its number, `champion`, its run, or a hash.")],
    out: Annotated[Path, typer.Option(help="Folder that gets the model folder, named by the version.")],
    registry: Where = DEFAULT,
    name: Name = None,
) -> None:
    """Copy a version's model folder, checked against its hash, e.g. to package it (the name is what is served)."""
    store = _open(registry, name)
    number = store.find(version).number
    typer.echo(store.fetch(number, out / number))


@verbs.command()
def show(
    version: Annotated[
        str, typer.Argument(help="A number as served (health page, serving log), `champion`, a run, or a hash.")
    ] = "champion",
    registry: Where = DEFAULT,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Trace a version: data, configuration, source, run, gate record and the decisions about it."""
    from uniscale.artifacts import read_json

    store = _open(registry, name)
    found = store.find(version)
    decisions = [entry for entry in store.history() if found.number in (entry.version, entry.previous)]
    record = read_json(found.decision) if found.decision else None
    config = read_json(found.config) if found.config else None
    if as_json:
        _print_json({**_plain(found), "gate": record, "config": config, "decisions": _decisions(decisions)})
        return
    lineage = [{"what": key.replace("_", " "), "value": value} for key, value in _plain(found).items()]
    _show(lineage, False, f"{store.name} {found.number}")
    if record:
        columns = ["name", "verdict", "why"]
        _show(record["gates"], False, f"gate: {record['verdict']}", columns)
    if config:
        sections = [{"section": key, "value": json.dumps(value)} for key, value in config.items()]
        _show(sections, False, "configuration")
    _show(_decisions(decisions), False, "decisions")


def _open(uri: str, name: str | None) -> "Registry":
    from uniscale.errors import RegistryError
    from uniscale.registry import Registry, names

    known = names(uri)
    if name is None and len(known) != 1:
        what = f"holds {', '.join(known)}: choose one with --name" if known else "is empty: run `uniscale run` first"
        raise RegistryError(f"registry {uri} {what}")
    if name is not None and name not in known:
        raise RegistryError(f"registry {uri} has no model {name!r}; it holds {', '.join(known) or 'none'}")
    return Registry(uri, name or known[0])


def _plain(version: "Version") -> dict[str, Any]:
    return {key: value if value is None else str(value) for key, value in asdict(version).items()}


def _decisions(entries: Iterable["Entry"]) -> list[dict[str, Any]]:
    columns = ("number", "at", "action", "version", "previous", "forced", "by", "why")
    return [{key: getattr(entry, key) for key in columns} for entry in entries]


def _seated(store: "Registry", version: "Version", as_json: bool) -> None:
    if as_json:
        _print_json(_plain(version))
    else:
        typer.echo(f"version {version.number} is champion of {store.name}: package and deploy it to serve it")


def _show(rows: list[dict[str, Any]], as_json: bool, title: str, columns: list[str] | None = None) -> None:
    if as_json:
        _print_json(rows)
        return
    from rich.markup import escape
    from rich.table import Table

    columns = columns or (list(rows[0]) if rows else [])
    table = Table(*(column.replace("_", " ") for column in columns), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(escape(_cell(column, row[column])) for column in columns))
    console().print(table)


def _cell(column: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    return str(value)[:12] if column in ("content_hash", "data_hash") else str(value)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1))
