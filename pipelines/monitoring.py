"""Monitoring, to be run on a schedule: served days with mature labels, drift, skew, experiments, and when to train.

What was served and what its users did become the newest days of the log. The champion is measured on them and they are
compared with the days before; running experiments are checked, with their roll-back; the retraining policy is asked,
and when it says so the training pipeline is started on these logs.
"""

from typing import Any

from kfp import dsl

from components.check import check as check_step
from components.drift import drift as drift_step
from components.ingest import ingest as ingest_step
from components.resolve import resolve as resolve_step
from components.retrain import retrain as retrain_step
from components.score import score as score_step
from components.served import served as served_step
from components.skew import skew as skew_step
from components.start import start as start_step
from components.watched import watched as watched_step
from pipelines.data_path import BUILD, Sections, build
from pipelines.place import Place
from uniscale.config import Config, override
from uniscale.profile import Profile

NAME = "uniscale-monitoring"
# In the order in which they run; the training is started only where the policy asks for it.
STEPS = (
    "preflight",
    "check",
    "served",
    "ingest",
    *BUILD,
    "resolve",
    "score",
    "drift",
    "skew",
    "retrain",
    "watched",
    "start",
    "finish",
)


def monitoring_pipeline(defaults: Config, profile: Profile | None = None) -> Any:
    """The pipeline; paths of what the service wrote are parameters, an empty `history_logs` is left out."""
    place = Place(profile)
    defaults, state = place.settled(defaults), place.state
    training = override(defaults, [f"data.registered_model={defaults.registered_model}"])
    locally = ["run", "--config", "{config}", "--runs", state]
    on_cluster = ["submit", "--no-wait", "--config", "{config}"]

    @dsl.pipeline(name=NAME, description="What was served yesterday: drift, skew, experiments, and when to train again")
    def monitoring(
        serving_log: str = f"{state}/serving/serving_log",
        live_logs: str = f"{state}/serving/logs",
        history_logs: str = "",
        book: str = f"{state}/experiments",
        service: str = "",
        now: str = "",
        seed: int = defaults.seed,
        ingest: str = defaults.ingest.model_dump_json(),
        features: str = defaults.features.model_dump_json(),
        spark: str = defaults.spark.model_dump_json(),
        samples: str = defaults.samples.model_dump_json(),
        train: str = defaults.train.model_dump_json(),
        gate: str = defaults.gate.model_dump_json(),
        drift: str = defaults.drift.model_dump_json(),
        retraining: str = defaults.retraining.model_dump_json(),
        notify: str = defaults.notify.model_dump_json(),
        training: str = training.model_dump_json(),
        start: list[str] = on_cluster if profile else locally,
        registry: str = f"{state}/registry",
        registered_model: str = defaults.registered_model,
        champion_version: str = "current",
        history: str = f"{state}/monitoring/drift",
        kept: str = f"{state}/monitoring/logs",
        runs: str = state,
        run_id: str = "run",
    ) -> None:
        model = {"registry": registry, "name": registered_model}
        with place.run(seed, notify, runs, run_id) as run:
            # First, because a harmful treatment has to go whatever the rest of the run meets.
            checked = check_step(**model, book=book, serving_log=serving_log, live_logs=live_logs, service=service)
            checked.set_caching_options(False).after(run.ready)
            served = served_step(
                seed=seed,
                samples=samples,
                serving_log=serving_log,
                live_logs=live_logs,
                history_logs=history_logs,
                now=now,
            )
            served.set_caching_options(False).after(checked)
            raw = served.outputs["raw"]
            clean = ingest_step(seed=seed, rules=ingest, raw=raw).outputs["clean"]
            _, rows = build(Sections(seed, features, samples, spark), clean)
            resolved = resolve_step(**model, requested=champion_version).set_caching_options(False).after(run.ready)
            scored = score_step(seed=seed, gate=gate, train=train, **model, version=resolved.output, rows=rows).outputs[
                "measured"
            ]
            drifted = drift_step(seed=seed, settings=drift, rows=rows, measured=scored).outputs["report"]
            compared = skew_step(seed=seed, settings=drift, serving_log=serving_log, rows=rows)
            compared.set_caching_options(False)
            asked = retrain_step(
                seed=seed,
                policy=retraining,
                **model,
                book=book,
                history=history,
                days=served.outputs["Output"],
                drifted=drifted,
            ).set_caching_options(False)
            asked.after(checked)
            watched_step(
                runs=runs,
                run_id=run.id,
                drifted=drifted,
                compared=compared.outputs["compared"],
                found=checked.outputs["found"],
                choice=asked.outputs["choice"],
            ).set_caching_options(False)
            with dsl.If(asked.outputs["Output"] == "train", name="due"):
                start_step(training=training, verb=start, kept=kept, raw=raw).set_caching_options(False)

    return monitoring
