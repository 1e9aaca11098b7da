"""Verbs around a running service: serve a deployment, put a load on it."""

from pathlib import Path
from typing import Annotated

import typer

from uniscale.cli.options import ConfigPath, Deployment, Out, Settings
from uniscale.cli.options import load as configuration

STOLEN = 0.01  # share of the machine's time taken by its host from which a load says so


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (serve, load):
        app.command(rich_help_panel="Service")(verb)


def serve(
    deployment: Deployment,
    log: Annotated[Path, typer.Option(help="Folder of the serving log.")] = Path("runs/serving/serving_log"),
    routing: Annotated[Path | None, typer.Option(help="Routing file to follow; it outlives the service.")] = None,
    follow: Annotated[str | None, typer.Option(help="Registry whose champion a variant follows.")] = None,
    name: Annotated[str, typer.Option(help="Model name in the registry.")] = "ranker",
    variant: Annotated[str, typer.Option(help="The variant that follows the champion.")] = "champion",
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Serve a deployment until Ctrl-C or SIGTERM; models change while it runs, by the routing file or the registry."""
    import signal
    import threading

    from serving.deployment import Deployment as Manifest
    from serving.follow import follow as follow_champion
    from serving.process import routing_of, running
    from uniscale.registry import Registry

    c = configuration(config, settings)
    file, stop = routing or routing_of(log), threading.Event()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until it is ready: what was started ends too
    with running(c, deployment, log, routing=file) as url:
        typer.echo(f"{url} serves {deployment}; its routing file is {file}; Ctrl-C ends it")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        if follow is None:
            stop.wait()
        else:
            seat = (Registry(follow, name), Manifest.load(deployment), file, log / "_exports", variant)
            follow_champion(*seat, stop, c.serving.routing_poll_seconds)


def load(
    out: Out = Path("runs/load"),
    url: Annotated[str | None, typer.Option(help="A running service.")] = None,
    deployment: Annotated[Path | None, typer.Option(help="A deployment to start for the load.")] = None,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second; of --find-knee, the first tried.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each load.")] = 10.0,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates a request.")] = 200,
    find_knee: Annotated[bool, typer.Option("--find-knee", help="Search the highest rate that holds.")] = False,
    p99_ms: Annotated[float, typer.Option(min=0.1, help="p99 within which a rate holds.")] = 200.0,
    settings: Settings = None,
    config: ConfigPath = None,
) -> None:
    """Put an open-loop load on a service; writes load.json and load.html.

    Latency counts from the intended send time, so a queue shows. UNISCALE_API_KEY is sent if it is set.
    """
    import tempfile
    from contextlib import ExitStack

    import numpy as np

    from serving.load import as_json, bodies_of
    from serving.load import find_knee as search
    from serving.load import load as put
    from serving.load_page import page
    from serving.process import running
    from uniscale.artifacts import write_json
    from uniscale.errors import ConfigError

    c = configuration(config, settings)
    if (url is None) == (deployment is None):
        raise ConfigError("load takes either --url of a running service or --deployment to start one")
    with ExitStack() as stack:
        if deployment is not None:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "log"
            url = stack.enter_context(running(c, deployment, log))
        assert url is not None
        bodies = bodies_of(url, candidates, 256, np.random.default_rng(c.seed))
        if find_knee:
            knee, loads = search(lambda one: put(str(url), bodies, one, seconds, c.seed), rate, p99_ms)
        else:
            loads = [put(url, bodies, rate, seconds, c.seed)]
            knee = rate if loads[0].holds(p99_ms) else None
    size = len(bodies[0]["item_ids"])
    write_json(out / "load.json", as_json(loads, knee, p99_ms, size))
    (out / "load.html").write_text(page(loads, knee, p99_ms, size))
    for one in loads:
        shown = {name: round(value, 1) for name, value in (one.latency_ms or {}).items()}
        typer.echo(f"{one.rate:g}/s: {one.achieved_rate:.1f}/s answered, {shown} ms, errors {one.errors or 0}")
        if one.send_lag_p99_ms > p99_ms / 10:
            typer.echo(
                f"  this client sent up to {one.send_lag_p99_ms:.0f} ms late (p99): the machine is the limit here"
            )
        if one.stolen is not None and one.stolen > STOLEN:
            typer.echo(f"  the host gave {one.stolen:.1%} of this machine's processors to others meanwhile")
    typer.echo(f"highest rate that held: {knee if knee is not None else 'none'}; written to {out}")
