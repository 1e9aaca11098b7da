"""Step: the deployment answers over HTTP as it should, and how fast."""

from kfp import dsl

from components.image import step


@step
def smoke(seed: int, serving: str, deployment: dsl.Input[dsl.Artifact], checked: dsl.Output[dsl.Artifact]) -> None:
    """Start the service on loopback, send it good and bad requests, measure latency, stop it.

    Args:
        seed: seed of the requests.
        serving: section `serving` of the configuration, as JSON.
        deployment: the deployment folder.
        checked: measured latencies and checks.
    """
    from pathlib import Path

    from serving.deploy import running
    from serving.smoke import smoke
    from uniscale.config import config_from_sections

    config = config_from_sections(seed, serving=serving)
    folder, out = Path(deployment.path), Path(checked.path)
    with running(config, folder, out.with_name("serving_log")) as url:
        smoke(config, url, folder, out)
