"""From a deployment folder to a warmed-up `Ranker`: models, item snapshot, online store.

Compute follows the device: weights are float16 on disk; on CPU they are widened to float32, which is the fastest
correct arithmetic there (bfloat16 and float16 run at about a tenth of its speed); on CUDA the model computes in
float16.
"""

import gc
from pathlib import Path

import pyarrow.parquet as pq
import torch

from features.text import TextEncoder
from models.batches import Batch
from models.checkpoint import load_model
from models.rows import ItemVectors
from serving import probe
from serving.deployment import Deployment
from serving.engine import Engine
from serving.items import Catalogue, Snapshot
from serving.log_writer import LogWriter
from serving.online_features import OnlineFeatures
from serving.ranker import Ranker
from serving.routing import Routing, Target
from serving.switch import Switch
from serving.telemetry import Telemetry
from uniscale.artifacts import content_hash
from uniscale.errors import ServingError
from uniscale.samples import SampleSpec
from uniscale.serving_log import SHADOW_SCHEMA, SHADOWS


class OnDevice:
    """A model's search export on a device: float32 on CPU, float16 autocast on CUDA."""

    def __init__(self, folder: Path, device: torch.device):
        self.model, self.device = load_model(folder).search_export().to(device), device

    def score(self, batch: Batch) -> torch.Tensor:
        """Calibrated probabilities, (N, T), on the CPU."""
        if self.device.type == "cpu":
            return self.model.score(batch)
        with torch.autocast(self.device.type, torch.float16):
            return self.model.score(batch.to(self.device)).float().cpu()


def load_checked(
    target: Target, deployment: Path, spec: SampleSpec, device: torch.device, tolerance: float
) -> OnDevice:
    """A model that has passed its parity probe, which also warms it up.

    Raises:
        ServingError: the folder is not the one named, or its scores are not those on record.
        ModelError: the folder cannot be loaded.
    """
    folder = deployment / target.folder
    if target.content_hash is not None and (found := content_hash(folder)) != target.content_hash:
        raise ServingError(f"{folder} has content {found}, the routing names {target.content_hash}: export it again")
    model = OnDevice(folder, device)
    probe.check(folder, model, spec, tolerance)
    return model


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
    spec = SampleSpec.load(features)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    items = pq.ParquetFile(features / "items.parquet").read(columns=["item_id", "index"])
    store = OnlineFeatures(features, spec)

    def catalogue() -> Catalogue:
        return Catalogue.from_tables(spec, store.items(items["item_id"].to_pylist()), items, deployment.popularity)

    serving, telemetry = deployment.serving, Telemetry(multiprocess_folder)
    ranker = Ranker(
        deployment,
        Engine(
            spec,
            ItemVectors.load(features, spec),
            TextEncoder.load(features / "text_encoder") if spec.text_dim else None,
        ),
        Switch(
            Routing.of(deployment),
            lambda target: load_checked(target, deployment_folder, spec, device, serving.probe_tolerance),
            routing,
            serving.routing_poll_seconds,
            lambda outcome: telemetry.swaps.labels(outcome).inc(),
        ),
        Snapshot(catalogue, serving.item_ttl_seconds),
        store,
        LogWriter(log, interval_seconds=serving.log_flush_seconds),
        telemetry,
        shadow_log=LogWriter(log / SHADOWS, interval_seconds=serving.log_flush_seconds, schema=SHADOW_SCHEMA),
    )
    ranker.warm_up()
    gc.freeze()  # a million objects that live as long as the process would be walked by every full collection
    return ranker
