"""Where a pipeline runs, this machine or a cluster, and what every run begins and ends with there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kfp import dsl

from components.finish import finish as finish_step
from components.preflight import preflight as preflight_step
from pipelines.kubernetes import apply_profile
from uniscale.config import Config, override
from uniscale.preflight import required_variables
from uniscale.profile import Profile


@dataclass(frozen=True)
class Begun:
    """A run in the block of its steps."""

    id: Any  # of Kubeflow on a cluster, since the runs of a schedule share their parameters
    ready: Any  # the first task, for which all others wait: it fails where a secret or the state folder is missing
    on_cluster: bool


@dataclass(frozen=True)
class Place:
    """A cluster by its profile, or this machine."""

    profile: Profile | None

    @property
    def state(self) -> str:
        """Folder of what outlives a run."""
        return self.profile.state if self.profile else "runs"

    def settled(self, config: Config) -> Config:
        """The configuration with the cluster's Spark master."""
        return override(config, [f"spark.master={self.profile.spark_master}"]) if self.profile else config

    def at_a_time(self, most: int) -> int:
        """How many turns of a loop: one on this machine, whose cores a step fills."""
        return most if self.profile else 1

    @contextmanager
    def run(self, seed: Any, notify: Any, runs: Any, run_id: Any) -> Iterator[Begun]:
        """The block of a run's steps; however they end, the exit handler reports it."""
        own = dsl.PIPELINE_JOB_ID_PLACEHOLDER if self.profile else run_id
        finish = finish_step(seed=seed, notify=notify, runs=runs, run_id=own).set_caching_options(False)
        with dsl.ExitHandler(finish, name="run"):
            yield Begun(own, self._preflight(), self.profile is not None)
        if self.profile:
            apply_profile(self.profile)

    def _preflight(self) -> Any:
        required = required_variables(self.profile.secrets) if self.profile else "{}"
        state = self.profile.state if self.profile else ""
        return preflight_step(required=required, state=state).set_caching_options(False)
