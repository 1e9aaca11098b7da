"""From a deployment folder to a warmed-up `Ranker`: models, item snapshot, online store."""

import gc
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch

from features.text import TextEncoder
from models.checkpoint import load_model
from models.rows import ItemVectors
from serving import precision, probe
from serving.deployment import Deployment
from serving.engine import Engine
from serving.input_log import CAPACITY, InputLog
from serving.items import Catalogue, Snapshot
from serving.log_writer import LogWriter
from serving.online_features import OnlineFeatures
from serving.ranker import Ranker
from serving.routing import Routing, Target
from serving.served_model import ServedModel
from serving.switch import Switch
from serving.telemetry import Telemetry
from serving.user_states import UserStates
from uniscale.artifacts import content_hash
from uniscale.errors import ServingError
from uniscale.samples import SampleSpec
from uniscale.serving_log import INPUTS, SHADOW_SCHEMA, SHADOWS, inputs_schema


def load_checked(
    target: Target,
    deployment: Path,
    spec: SampleSpec,
    device: torch.device,
    tolerance: float,
    states: UserStates | None = None,
    half: bool = False,
    found: Callable[[str], None] = lambda outcome: None,
) -> ServedModel:
    """A model's search export that has passed its parity probe, in the precision that measured fastest.

    Args:
        target: which model.
        deployment: what a relative folder is below.
        spec: what the service looks up.
        device: where it computes.
        tolerance: largest difference of a score, of the probe and of a lower precision.
        states, half, found: what is kept of users (`ServedModel`).

    Raises:
        ServingError: the folder is not the one named, or its scores are not those on record.
        ModelError: the folder cannot be loaded.
    """
    folder = deployment / target.folder
    if target.content_hash is not None and (holds := content_hash(folder)) != target.content_hash:
        raise ServingError(f"{folder} has content {holds}, the routing names {target.content_hash}: export it again")
    model = ServedModel(load_model(folder).search_export(), device, states, half, found)
    probe.check(folder, model, spec, tolerance)
    precision.choose(model, probe.probe_batch(model.model.spec), tolerance)
    return model.given(spec)


def load_ranker(
    deployment_folder: Path, features: Path, log: Path, multiprocess_folder: Path | None, routing: Path | None = None
) -> Ranker:
    """Everything a worker needs, warmed up.

    Args:
        deployment_folder: as `serving.deploy.package` wrote it.
        features: the features folder whose online store is read (the deployment's own, or a live copy).
        log: folder of the serving log.
        multiprocess_folder: where prometheus_client shares values between workers, if it does.
        routing: file to follow while running (`serving.routing`); None for the deployment's own variants for good.

    Raises:
        ServingError: the deployment does not fit its features or this code.
        ModelError: a model cannot be loaded.
        DataError: the features folder is incomplete.
    """
    torch.set_num_threads(1)  # workers use the cores; two OpenMP threads on busy cores cost 20 times the latency
    deployment = Deployment.load(deployment_folder)
    spec = deployment.looks_up(SampleSpec.load(features))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    items = pq.ParquetFile(features / "items.parquet").read(columns=["item_id", "index"])
    store = OnlineFeatures(features, spec, deployment.services, deployment.serving.deadline_ms / 1000)

    item_ids = items["item_id"].to_pylist()

    def catalogue(share: float) -> Catalogue:
        return Catalogue.from_tables(spec, store.items(item_ids, share), items, deployment.popularity)

    serving, telemetry = deployment.serving, Telemetry(multiprocess_folder)
    states = UserStates(int(serving.user_state_mib * 2**20), telemetry.states_changed)

    def load(target: Target) -> ServedModel:
        kept = (states, serving.user_state_half, lambda outcome: telemetry.user_states.labels(outcome).inc())
        return load_checked(target, deployment_folder, spec, device, serving.probe_tolerance, *kept)

    ranker = Ranker(
        deployment,
        Engine(
            spec,
            ItemVectors.load(features, spec),
            TextEncoder.load(features / "text_encoder") if spec.text_dim else None,
        ),
        Switch(
            Routing.of(deployment),
            load,
            routing,
            serving.routing_poll_seconds,
            lambda outcome: telemetry.swaps.labels(outcome).inc(),
        ),
        Snapshot(
            catalogue,
            serving.item_ttl_seconds,
            count=lambda outcome: telemetry.item_reloads.labels(outcome).inc(),
        ),
        store,
        LogWriter(log, interval_seconds=serving.log_flush_seconds, count=telemetry.log_dropped.inc),
        telemetry,
        shadow_log=LogWriter(log / SHADOWS, interval_seconds=serving.log_flush_seconds, schema=SHADOW_SCHEMA),
        input_log=InputLog(
            LogWriter(log / INPUTS, CAPACITY, serving.log_flush_seconds, inputs_schema(spec)), serving.input_log
        ),
    )
    ranker.warm_up()
    gc.freeze()  # a million objects that live as long as the process would be walked by every full collection
    return ranker
