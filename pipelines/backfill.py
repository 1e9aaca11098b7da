"""The backfill: what monitoring would have said on each of some past days, from the logs as they were known then."""

from typing import Any

from kfp import dsl

from components.backfilled import backfilled as backfilled_step
from components.cut import cut as cut_step
from components.days import days as days_step
from components.drift import drift as drift_step
from components.resolve import resolve as resolve_step
from components.score import score as score_step
from pipelines.data_path import BUILD, READ, Sections, build, read_logs
from pipelines.place import Place
from uniscale.config import Config
from uniscale.profile import Profile

NAME = "uniscale-backfill"
STEPS = (*READ, "days", "resolve", "cut", *BUILD, "score", "drift", "backfilled", "finish")
SIDE_BY_SIDE = 4  # Spark jobs at a time on a cluster


def backfill_pipeline(defaults: Config, profile: Profile | None = None) -> Any:
    """The pipeline; `first` and `last` are ISO days, empty for the newest day."""
    place = Place(profile)
    defaults, state = place.settled(defaults), place.state

    @dsl.pipeline(name=NAME, description="The champion and the drift of each past day, from what was known at its end")
    def backfill(
        seed: int = defaults.seed,
        data: str = defaults.data.model_dump_json(),
        simulation: str = defaults.simulation.model_dump_json(),
        ingest: str = defaults.ingest.model_dump_json(),
        features: str = defaults.features.model_dump_json(),
        spark: str = defaults.spark.model_dump_json(),
        samples: str = defaults.samples.model_dump_json(),
        train: str = defaults.train.model_dump_json(),
        gate: str = defaults.gate.model_dump_json(),
        drift: str = defaults.drift.model_dump_json(),
        notify: str = defaults.notify.model_dump_json(),
        first: str = "",
        last: str = "",
        input_hash: str = "",
        registry: str = f"{state}/registry",
        registered_model: str = defaults.registered_model,
        champion_version: str = "current",
        history: str = f"{state}/monitoring/drift",
        runs: str = state,
        run_id: str = "run",
    ) -> None:
        with place.run(seed, notify, runs, run_id) as run:
            _, clean = read_logs(run, defaults, seed, data, simulation, ingest, input_hash)
            named = days_step(first=first, last=last, clean=clean)
            with dsl.ParallelFor(named.output, name="day", parallelism=place.at_a_time(SIDE_BY_SIDE)) as day:
                # Not before the loop: kfp.local 2.17.0 puts the day into every parameter that comes from outside.
                resolved = resolve_step(registry=registry, name=registered_model, requested=champion_version)
                resolved.set_caching_options(False)
                known = cut_step(day=day, clean=clean).outputs["known"]
                _, rows = build(Sections(seed, features, samples, spark), known)
                scored = score_step(
                    seed=seed,
                    gate=gate,
                    train=train,
                    registry=registry,
                    name=registered_model,
                    version=resolved.output,
                    rows=rows,
                )
                drifted = drift_step(seed=seed, settings=drift, rows=rows, measured=scored.outputs["measured"])
            backfilled_step(
                history=history,
                runs=runs,
                run_id=run.id,
                measured=dsl.Collected(scored.outputs["measured"]),
                drifted=dsl.Collected(drifted.outputs["report"]),
            ).set_caching_options(False)

    return backfill
