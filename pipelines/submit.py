"""Pipelines on Kubeflow: compile, upload as a version, start runs and schedules."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.catalogue import check_parameters, compile_to, pipeline_named
from pipelines.connection import asking
from uniscale.artifacts import source_hash
from uniscale.config import Config
from uniscale.errors import ConfigError, UniscaleError
from uniscale.profile import Profile


@dataclass(frozen=True)
class Uploaded:
    """A version of a pipeline in Kubeflow."""

    pipeline_id: str
    version_id: str
    name: str


def upload(client: Any, host: str, package: Path, pipeline: str) -> Uploaded:
    """Upload IR YAML as a version of a pipeline; the same IR of the same source is uploaded once.

    Raises:
        UniscaleError: the API cannot be reached or refuses.
    """
    digest = hashlib.blake2b(package.read_bytes(), digest_size=4).hexdigest()
    name = f"{source_hash()}-{digest}"
    with asking(host):
        pipeline_id = client.get_pipeline_id(pipeline)
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(str(package), pipeline_name=pipeline).pipeline_id
        for version in client.list_pipeline_versions(pipeline_id, page_size=100).pipeline_versions or []:
            if version.display_name == name:
                return Uploaded(pipeline_id, version.pipeline_version_id, name)
        made = client.upload_pipeline_version(str(package), pipeline_version_name=name, pipeline_id=pipeline_id)
    return Uploaded(pipeline_id, made.pipeline_version_id, name)


@dataclass(frozen=True)
class Asked:
    """What is to run: a pipeline of the catalogue, its configuration and cluster, parameters of its own."""

    config: Config
    profile: Profile
    pipeline: str = "training"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The pipeline's name in Kubeflow."""
        return pipeline_named(self.pipeline).name


def submit_run(client: Any, host: str, asked: Asked, experiment: str) -> str:
    """Compile, upload and start a run; gives its id.

    Raises:
        ConfigError: an unknown pipeline, or a parameter that it does not have.
        UniscaleError: the API cannot be reached or refuses.
    """
    return start_run(client, host, _uploaded(client, host, asked), experiment, asked.name, asked.parameters)


def start_run(
    client: Any, host: str, uploaded: Uploaded, experiment: str, name: str, parameters: Mapping[str, Any] | None = None
) -> str:
    """Start a run of an uploaded version; gives its id."""
    with asking(host):
        filed = client.create_experiment(experiment)
        run = client.run_pipeline(
            experiment_id=filed.experiment_id,
            job_name=f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            pipeline_id=uploaded.pipeline_id,
            version_id=uploaded.version_id,
            params=dict(parameters or {}),
        )
    return str(run.run_id)


def _uploaded(client: Any, host: str, asked: Asked) -> Uploaded:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{asked.pipeline}.yaml"
        check_parameters(compile_to(asked.config, package, asked.profile, asked.pipeline), asked.parameters)
        return upload(client, host, package, asked.name)


def create_schedule(client: Any, host: str, asked: Asked, experiment: str, name: str, cron: str) -> str:
    """Compile, upload and start every time that `cron` says; gives the schedule's id.

    One run at a time, and a paused schedule does not catch up: the pipeline reads all days that there are.

    Args:
        cron: six fields (seconds first, as Kubeflow has them) or five.

    Raises:
        ConfigError: `cron` has another number of fields.
        UniscaleError: the API cannot be reached or refuses, or has a schedule of this name.
    """
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise ConfigError(f"--cron {cron!r} has {len(fields)} fields: give five, or six with seconds first")
    if name in {schedule.display_name for schedule in schedules(client, host)}:
        raise UniscaleError(f"there is a schedule {name!r}: delete it first, or give --name")
    uploaded = _uploaded(client, host, asked)
    with asking(host):
        filed = client.create_experiment(experiment)
        made = client.create_recurring_run(
            experiment_id=filed.experiment_id,
            job_name=name,
            cron_expression=" ".join(fields if len(fields) == 6 else ["0", *fields]),
            max_concurrency=1,
            no_catchup=True,
            pipeline_id=uploaded.pipeline_id,
            version_id=uploaded.version_id,
            params=dict(asked.parameters),
        )
    return str(made.recurring_run_id)


def schedules(client: Any, host: str) -> list[Any]:
    """Every schedule that the token may see, of this pipeline or another."""
    found: list[Any] = []
    token = ""
    while True:
        with asking(host):
            page = client.list_recurring_runs(page_token=token, page_size=100)
        found.extend(page.recurring_runs or [])
        token = page.next_page_token or ""
        if not token:
            return found


def schedule_named(client: Any, host: str, reference: str) -> Any:
    """A schedule by id or name.

    Raises:
        UniscaleError: there is none, or several have the name.
    """
    known = schedules(client, host)
    fitting = [s for s in known if reference in (s.recurring_run_id, s.display_name)]
    if len(fitting) != 1:
        names = ", ".join(sorted(s.display_name for s in known)) or "none"
        what = "fits several schedules, give an id" if fitting else f"is no schedule; there are: {names}"
        raise UniscaleError(f"{reference!r} {what}")
    return fitting[0]
