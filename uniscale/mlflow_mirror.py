"""What MLflow shows of a registered model: versions with tags, the runs of their training, and two aliases.

All of it follows from the registry's folder and log, so a database that was lost is made anew.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from uniscale.version_record import TrainingRun

BATCH = 1000  # metrics that MLflow takes at once


class Mirror:
    """One registered model in MLflow.

    Args:
        client: an `MlflowClient`.
        name: the registered model.
        folder: of its model files, which MLflow names as the home of its runs.
    """

    def __init__(self, client: Any, name: str, folder: Path):
        self.client, self.name, self.folder = client, name, folder

    def point(self, aliases: Mapping[str, str | None]) -> None:
        """Point each alias at a version's number, or take it away (None)."""
        present = self.client.get_registered_model(self.name).aliases
        for alias, wanted in aliases.items():
            if wanted and str(present.get(alias)) != wanted:
                self.client.set_registered_model_alias(self.name, alias, wanted)
            elif not wanted and alias in present:
                self.client.delete_registered_model_alias(self.name, alias)

    def add(self, place: Path, tags: Mapping[str, Any]) -> str:
        """A number for a version's folder: a new one, or the one a killed process had got for the same folder."""
        if not self.client.search_registered_models(f"name='{self.name}'"):
            self.client.create_registered_model(self.name)
        source = place.resolve().as_uri()
        for made in self.client.search_model_versions(f"name='{self.name}'"):
            if made.source == source:
                return str(made.version)
        kept = {key: str(value)[:4000] for key, value in tags.items() if value not in ("", None)}
        run = self._run(place, tags["run_id"])
        return str(self.client.create_model_version(self.name, source, run_id=run, tags=kept).version)

    def restore(self, numbers: Iterable[str], kept: Callable[[str], tuple[Path, Mapping[str, Any]]]) -> None:
        """Make anew those of the numbers (ascending) that come after MLflow's last, of the folder and tags `kept`.

        Those are all of them where its database was lost, fewer where a backup is older or this was cut off before.
        """
        last = max((int(made.version) for made in self.client.search_model_versions(f"name='{self.name}'")), default=0)
        for number in (n for n in numbers if int(n) > last):
            while int(made := self.add(*kept(number))) < int(number):  # the number of a registration that was cut off
                self.client.delete_model_version(self.name, made)

    def _run(self, place: Path, name: str) -> str | None:
        """The run that shows the training of a version's model; None for a model without curves."""
        from mlflow.entities import Metric, Param

        training = TrainingRun.of(place / "model")
        if training is None:
            return None
        experiment = self.client.get_experiment_by_name(self.name)
        home = self.folder.resolve().as_uri()
        number = experiment.experiment_id if experiment else self.client.create_experiment(self.name, home)
        # One may have been started by a registration that was killed.
        started = self.client.search_runs([number], f"tags.model_files = '{place.name}'")
        run = (started or [self.client.create_run(number, run_name=name, tags={"model_files": place.name})])[0].info
        self.client.log_batch(run.run_id, params=[Param(key, value) for key, value in training.parameters.items()])
        metrics = [Metric(key, value, run.start_time, step) for key, step, value in training.metrics]
        for first in range(0, len(metrics), BATCH):
            self.client.log_batch(run.run_id, metrics=metrics[first : first + BATCH])
        self.client.set_terminated(run.run_id)
        return str(run.run_id)
