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
    def run(self, seed: Any, notify: Any, runs: Any, run_id: Any) -> Iterator[Any]:
        """The run as a block of its steps, reported however it ends; gives its id, which on a cluster is Kubeflow's.

        The runs of a schedule share all parameters, `run_id` among them.
        """
        own = dsl.PIPELINE_JOB_ID_PLACEHOLDER if self.profile else run_id
        finish = finish_step(seed=seed, notify=notify, runs=runs, run_id=own).set_caching_options(False)
        with dsl.ExitHandler(finish, name="run"):
            yield own
        if self.profile:
            apply_profile(self.profile)

    def preflight(self) -> Any:
        """The first task: fails within seconds where a secret or the state folder is missing."""
        required = required_variables(self.profile.secrets) if self.profile else "{}"
        state = self.profile.state if self.profile else ""
        return preflight_step(required=required, state=state).set_caching_options(False)
