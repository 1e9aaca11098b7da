"""The training pipeline: logs to a monitored ranker, with the champion to beat and a gate that branches.

Continuous training is the same graph with another candidate: the champion, taken forward over the days that it has not
seen.
"""

from typing import Any

from kfp import dsl

from components.advance import advance as advance_step
from components.champion import champion as champion_step
from components.cost import cost as cost_step
from components.drift import drift as drift_step
from components.evaluate import evaluate as evaluate_step
from components.experiment import experiment as experiment_step
from components.gate import gate as gate_step
from components.lineage import lineage as lineage_step
from components.package import package as package_step
from components.promote import promote as promote_step
from components.reject import reject as reject_step
from components.resolve import resolve as resolve_step
from components.seat import seat as seat_step
from components.smoke import smoke as smoke_step
from components.summary import summary as summary_step
from components.train import train as train_step
from pipelines.data_path import BUILD, READ, Sections, build, read_logs
from pipelines.place import Place
from uniscale.config import Config, override
from uniscale.profile import Profile

NAME = "uniscale-training"
CONTINUOUS = "uniscale-continuous"
AFTER = (
    "evaluate",
    "drift",
    "cost",
    "gate",
    "promote",
    "reject",
    "package",
    "smoke",
    "experiment",
    "summary",
    "finish",
)
# In the order in which a reader thinks of them; of promote and reject one runs.
STEPS = (*READ, "lineage", *BUILD, "resolve", "champion", "seat", "train", *AFTER)
CONTINUOUS_STEPS = tuple("advance" if step == "train" else step for step in STEPS)


def training_pipeline(defaults: Config, profile: Profile | None = None) -> Any:
    """The pipeline, its parameters defaulting to a configuration, its tasks settled by the profile of a cluster.

    Every section of the configuration is a parameter of its own, as JSON: a step takes those it reads, so a change of
    one section re-runs only the steps that depend on it. On a cluster a run goes by Kubeflow's own id, since those of a
    schedule share all parameters.
    """
    return _pipeline(defaults, profile, continuous=False)


def continuous_pipeline(defaults: Config, profile: Profile | None = None) -> Any:
    """The same with the champion taken forward as the candidate, which has to be as good, not better."""
    return _pipeline(override(defaults, ["gate.require_superiority=false"]), profile, continuous=True)


def _pipeline(defaults: Config, profile: Profile | None, continuous: bool) -> Any:
    place = Place(profile)
    defaults, state = place.settled(defaults), place.state
    about = "From logs to a monitored ranker: ES3 samples, training, gate, deployment, A/B"
    if continuous:
        about = "The champion goes on over the days that it has not seen, each batch predicted before it is learned"

    @dsl.pipeline(name=CONTINUOUS if continuous else NAME, description=about)
    def training(
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
        cost: str = defaults.cost.model_dump_json(),
        serving: str = defaults.serving.model_dump_json(),
        experiment: str = defaults.experiment.model_dump_json(),
        drift: str = defaults.drift.model_dump_json(),
        notify: str = defaults.notify.model_dump_json(),
        input_hash: str = "",
        data_version: str = "",
        registry: str = f"{state}/registry",
        registered_model: str = defaults.registered_model,
        champion_version: str = "current",
        work: str = f"{state}/work",
        runs: str = state,
        run_id: str = "run",
    ) -> None:
        with place.run(seed, notify, runs, run_id) as run:
            raw, clean = read_logs(run, defaults, seed, data, simulation, ingest, input_hash)
            made_of = lineage_step(
                seed=seed,
                data=data,
                simulation=simulation,
                ingest=ingest,
                features=features,
                samples=samples,
                model=model,
                train=train,
                gate=gate,
                data_version=data_version,
                clean=clean,
            ).outputs["made_of"]
            tables, rows = build(Sections(seed, features, samples, spark), clean)

            resolved = resolve_step(registry=registry, name=registered_model, requested=champion_version)
            resolved.set_caching_options(False).after(run.ready)
            champion = champion_step(
                seed=seed,
                settings=train,
                model_sizes=model,
                work=work,
                registry=registry,
                name=registered_model,
                version=resolved.output,
                rows=rows,
            ).outputs["model"]
            seated = seat_step(
                registry=registry,
                name=registered_model,
                version=resolved.output,
                run_id=run.id,
                made_of=made_of,
                model=champion,
            )
            seated.set_caching_options(False)

            if continuous:
                trained = advance_step(seed=seed, settings=train, work=work, rows=rows, champion=champion)
            else:
                trained = train_step(seed=seed, settings=train, model_sizes=model, work=work, rows=rows)
            candidate = trained.outputs["model"]
            measured = evaluate_step(
                seed=seed, gate=gate, train=train, raw=raw, rows=rows, candidate=candidate, champion=champion
            ).outputs["measured"]
            drifted = drift_step(seed=seed, settings=drift, rows=rows, measured=measured).outputs["report"]
            costs = cost_step(seed=seed, settings=cost, rows=rows, candidate=candidate, champion=champion).outputs[
                "costs"
            ]
            decided = gate_step(seed=seed, rules=gate, measured=measured, drifted=drifted, costs=costs)
            decision = decided.outputs["decision"]

            def serve(verdict: str, version: dsl.PipelineTask, treatment: Any) -> None:
                """Deploy both variants, check them, put them before users, and sum up; a branch ends with this."""
                deployment = package_step(
                    seed=seed,
                    serving=serving,
                    experiment=experiment,
                    features=features,
                    control_version=seated.output,
                    treatment_version=version.output,
                    tables=tables,
                    control=champion,
                    treatment=treatment,
                ).outputs["deployment"]
                checked = smoke_step(seed=seed, serving=serving, deployment=deployment).outputs["checked"]
                result = experiment_step(
                    seed=seed,
                    data=data,
                    simulation=simulation,
                    serving=serving,
                    settings=experiment,
                    clean=clean,
                    rows=rows,
                    deployment=deployment,
                ).outputs["result"]
                summary_step(
                    runs=runs,
                    run_id=run.id,
                    verdict=verdict,
                    rows=rows,
                    clean=clean,
                    measured=measured,
                    decision=decision,
                    checked=checked,
                    drifted=drifted,
                    result=result,
                ).set_caching_options(False)

            record = {"registry": registry, "name": registered_model, "run_id": run.id, "made_of": made_of}
            with dsl.If(decided.outputs["Output"] == "promote", name="promoted"):
                promoted = promote_step(**record, measured=measured, decision=decision).set_caching_options(False)
                serve("promote", promoted, measured)
            with dsl.Else(name="rejected"):
                reject_step(**record, measured=measured, decision=decision).set_caching_options(False)
                serve("reject", seated, champion)

    return training
