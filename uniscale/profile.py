"""Where and how the steps run on Kubernetes: images, resources, devices, volumes, secrets; one YAML file a cluster.

As strict as `params.yaml`: every key is there and none is unknown. A profile changes nothing about what is computed
but the Spark master; so a run means the same under every profile.
"""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from uniscale.artifacts import source_hash
from uniscale.config import explain, nearest
from uniscale.errors import ConfigError
from uniscale.sections import Section

Target = Literal["features", "train", "train-gpu", "serve", "monitor", "all"]
Cores = Annotated[str, Field(pattern=r"^([0-9]*\.)?[0-9]+m?$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+([EPTGMK]i?)?$")]


class Toleration(Section):
    """A taint that a pod may be placed in spite of."""

    key: str
    operator: Literal["Equal", "Exists"]
    value: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Pool(Section):
    """What a step gets: image, resources, devices, place and patience."""

    target: Target = Field(description="target of the Dockerfile whose image runs the step")
    cpu_request: Cores = Field(description="cores, e.g. 2 or 500m")
    cpu_limit: Cores
    memory_request: Memory = Field(description="e.g. 4Gi")
    memory_limit: Memory
    accelerator: str = Field(description="extended resource, e.g. nvidia.com/gpu; empty for none")
    accelerators: int = Field(ge=0, description="how many of them")
    node_selector: dict[str, str] = Field(description="labels that the node must have")
    tolerations: list[Toleration]
    annotations: dict[str, str] = Field(description="of the pod, e.g. the network attachment of an RDMA device")
    environment: dict[str, str] = Field(description="e.g. NCCL's settings")
    shared_memory: str = Field(description="size of /dev/shm, e.g. 8Gi; empty for the container runtime's 64 MiB")
    retries: int = Field(ge=0, description="times that a failed step is started again")
    retry_seconds: int = Field(ge=0, description="wait before the first of them; it doubles")
    timeout_seconds: int = Field(ge=1, description="after which the pod is ended and the step has failed")

    @model_validator(mode="after")
    def _accelerators_have_a_type(self) -> "Pool":
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError("give accelerator and accelerators both, or neither ('' and 0)")
        return self


class Profile(Section):
    """A cluster."""

    image: str = Field(description="repository of the images; their tag is <target>-<hash of the source>")
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    pull_secrets: list[str] = Field(description="secrets that open the image registry")
    volumes: dict[str, str] = Field(description="persistent volume claim: path where every step mounts it")
    state: str = Field(description="folder on one of these volumes for registry, checkpoints and run reports")
    secrets: dict[str, dict[str, str]] = Field(description="secret: key in it: environment variable of every step")
    spark_master: str = Field(description="in place of spark.master")
    pools: dict[str, Pool] = Field(description="`default` serves every step that `steps` does not name")
    steps: dict[str, str] = Field(description="step: pool")

    @model_validator(mode="after")
    def _references_hold(self) -> "Profile":
        if "default" not in self.pools:
            raise ValueError("pools has no `default`, which serves the steps that `steps` does not name")
        for step, pool in self.steps.items():
            if pool not in self.pools:
                raise ValueError(f"steps.{step} = {pool!r} names no pool{nearest(pool, list(self.pools))}")
        if not any(Path(self.state).is_relative_to(path) for path in self.volumes.values()):
            raise ValueError(f"state = {self.state!r} lies on none of the volumes {sorted(self.volumes.values())}")
        return self

    def pool_of(self, step: str) -> Pool:
        """The pool that serves a step."""
        return self.pools[self.steps.get(step, "default")]

    def image_of(self, target: str) -> str:
        """The image of a target of the Dockerfile, tagged with the hash of the present source."""
        return f"{self.image}:{target}-{source_hash()}"

    def targets(self) -> list[str]:
        """Targets of the Dockerfile that the steps need."""
        return sorted({pool.target for pool in self.pools.values()})


def load_profile(name: str) -> Profile:
    """A profile by its name in `profiles/`, or by the path of a YAML file.

    Raises:
        ConfigError: no such profile, bad YAML, an unknown or missing key, a value that cannot be.
    """
    path = _path(name)
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds {type(raw).__name__}, not a mapping: start from one in profiles/")
    try:
        return Profile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(explain(problem, Profile) for problem in error.errors())) from None


def _path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).exists():
            raise ConfigError(f"no profile {name}: copy one of profiles/ and edit it")
        return Path(name)
    checkout = Path(__file__).resolve().parent.parent / "profiles"
    folder: Any = checkout if checkout.exists() else resources.files("uniscale").joinpath("profiles")
    known = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
    if name not in known:
        raise ConfigError(f"no profile {name!r}{nearest(name, known)} (or give the path of a .yaml file)")
    return Path(str(folder.joinpath(f"{name}.yaml")))
