"""Step: champion and candidate before users: an A/B where users can answer, a replay of the log where they cannot."""

from kfp import dsl

from components.image import step


@step
def experiment(
    seed: int,
    data: str,
    simulation: str,
    serving: str,
    settings: str,
    clean: dsl.Input[dsl.Dataset],
    rows: dsl.Input[dsl.Dataset],
    deployment: dsl.Input[dsl.Artifact],
    result: dsl.Output[dsl.Artifact],
) -> None:
    """Run the live service before simulated users for some days and analyse the logs it wrote; else replay.

    Args:
        seed: seed of the run.
        data: section `data` of the configuration, as JSON.
        simulation: section `simulation`, as JSON.
        serving: section `serving`, as JSON.
        settings: section `experiment`, as JSON.
        clean: validated logs.
        rows: the samples folder.
        deployment: the deployment folder.
        result: logs written, analysis as JSON and as a page.
    """
    from pathlib import Path

    from features.store.online import push_behaviours
    from monitoring.experiment import analyse
    from serving.deploy import running, store_of
    from serving.replay import replay
    from simulation.live import http_ranker, run_live
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, data=data, simulation=simulation, serving=serving, experiment=settings)
    logs, folder, out = Path(clean.path), Path(deployment.path), Path(result.path)
    out.mkdir(parents=True, exist_ok=True)
    answered = out / "serving_log"
    if config.data.source != "simulation":
        with running(config, folder, answered) as url:
            replay(config, logs, Path(rows.path), url, out / "replay")
        return
    with running(config, folder, answered) as url:
        online = store_of(answered)
        run_live(config, logs, http_ranker(url), out / "logs", lambda events: push_behaviours(online, events))
    analyse(config.experiment, answered, out / "logs", out / "analysis", pre_period=logs)
