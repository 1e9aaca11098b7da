"""The sweep: systems trained and judged side by side on the same samples, then their table and a fit over sizes."""

from typing import Any

from kfp import dsl

from components.base import base as base_step
from components.comparison import comparison as comparison_step
from components.trial import trial as trial_step
from pipelines.data_path import BUILD, READ, Sections, build, read_logs
from pipelines.place import Place
from uniscale.config import Config
from uniscale.profile import Profile

NAME = "uniscale-sweep"
STEPS = (*READ, *BUILD, "base", "trial", "comparison", "finish")
# HHSFT in three sizes; an architecture comparison names entries of the zoo in their place.
SYSTEMS = [f"hhsft@search,model.hhsft.hfa_layers={layers}" for layers in (1, 2, 3)]
SIDE_BY_SIDE = 8  # on a cluster


def sweep_pipeline(defaults: Config, profile: Profile | None = None) -> Any:
    """The pipeline; `systems` and `base` are systems as `uniscale compare` takes them.

    A setting of a system may also be a place of an axis of `uniscale scale`, e.g. `length=16`.
    """
    place = Place(profile)
    defaults, state = place.settled(defaults), place.state

    @dsl.pipeline(name=NAME, description="Systems against a base on the same rows, and a power law over their sizes")
    def sweep(
        seed: int = defaults.seed,
        data: str = defaults.data.model_dump_json(),
        simulation: str = defaults.simulation.model_dump_json(),
        ingest: str = defaults.ingest.model_dump_json(),
        features: str = defaults.features.model_dump_json(),
        spark: str = defaults.spark.model_dump_json(),
        samples: str = defaults.samples.model_dump_json(),
        model: str = defaults.model.model_dump_json(),
        train: str = defaults.train.model_dump_json(),
        gate: str = defaults.gate.model_dump_json(),
        notify: str = defaults.notify.model_dump_json(),
        base: str = "dlrm_mlp@search",
        systems: list[str] = SYSTEMS,
        input_hash: str = "",
        work: str = f"{state}/work",
        runs: str = state,
        run_id: str = "run",
    ) -> None:
        with place.run(seed, notify, runs, run_id) as run:
            raw, clean = read_logs(run, defaults, seed, data, simulation, ingest, input_hash)
            _, rows = build(Sections(seed, features, samples, spark), clean)
            shared = {
                "seed": seed,
                "model": model,
                "train": train,
                "gate": gate,
                "work": work,
                "raw": raw,
                "rows": rows,
            }
            against = base_step(**shared, system=base).outputs["tried"]
            with dsl.ParallelFor(systems, name="system", parallelism=place.at_a_time(SIDE_BY_SIDE)) as system:
                tried = trial_step(**shared, system=system, against=against)
            comparison_step(
                seed=seed,
                gate=gate,
                runs=runs,
                run_id=run.id,
                against=against,
                tried=dsl.Collected(tried.outputs["tried"]),
            ).set_caching_options(False)

    return sweep
