"""Opt-in: steps as real containers, from an image of a debootstrap base, through the local runner's Docker.

`tests/pipelines/container_image.sh` makes the image, base and code; this environment's packages are mounted into it,
read-only. Then, with docker or podman's socket as DOCKER_HOST and the Python package `docker`:
UNISCALE_CONTAINER_IMAGE=localhost/uniscale:test pytest tests/pipelines/test_containers.py
"""

import os
import sysconfig

import pytest
from kfp import dsl, local

from components.finish import finish
from components.ingest import ingest
from components.logs import logs
from components.preflight import preflight
from uniscale.artifacts import read_json
from uniscale.config import load_config

IMAGE = os.environ.get("UNISCALE_CONTAINER_IMAGE", "")
SMALL = ["simulation.users=50", "simulation.items=100", "simulation.days=5"]


@pytest.mark.skipif(not IMAGE, reason="needs UNISCALE_CONTAINER_IMAGE, and docker or podman")
def test_a_pipeline_runs_in_containers_that_install_nothing(tmp_path) -> None:
    config = load_config(None, SMALL)
    state = tmp_path / "out" / "state"  # the pipeline root is all that a container sees

    @dsl.pipeline(name="small")
    def small() -> None:
        last = finish(seed=7, notify=config.notify.model_dump_json(), runs=str(state), run_id="r1")
        last.set_container_image(IMAGE)
        with dsl.ExitHandler(last):
            ready = preflight(required="{}", state=str(state)).set_container_image(IMAGE)
            sections = {"data": config.data.model_dump_json(), "simulation": config.simulation.model_dump_json()}
            raw = logs(seed=7, **sections, input_hash="").set_container_image(IMAGE).after(ready)
            rules = config.ingest.model_dump_json()
            ingest(seed=7, rules=rules, raw=raw.outputs["raw"]).set_container_image(IMAGE)

    # No network: nothing may be fetched when a container starts. A container of a container may not raise its limits.
    limits = [{"Name": name, "Soft": most, "Hard": most} for name, most in (("nofile", 1024), ("nproc", 4096))]
    packages = {"Type": "bind", "Source": sysconfig.get_paths()["purelib"], "Target": "/opt/site", "ReadOnly": True}
    podman = {"runtime": "runc"} if "podman" in os.environ.get("DOCKER_HOST", "") else {}
    runner = local.DockerRunner(network_mode="none", ulimits=limits, mounts=[packages], **podman)
    local.init(runner, pipeline_root=str(tmp_path / "out"))
    small()
    assert read_json(state / "r1" / "outcome.json")["state"] == "SUCCEEDED"
    (report,) = (tmp_path / "out").rglob("clean/report.json")
    assert read_json(report)["tables"]["requests"]["rows_out"] > 0
