"""One small deployment (two models, a small Feast store) and a running service of it, for the tests over HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from uniscale.config import Config, load_config, override

SETTINGS = [
    "samples.warmup_days=1",
    "features.windows_days=[1, 7, 30]",
    "samples.valid_days=1",
    "samples.test_days=2",
    "features.text_dim=8",
    "model.table_rows=256",
    "model.embedding_dim=4",
    "model.hhsft.hfa_dim=16",
    "model.hhsft.gfa_dim=8",
    "serving.deadline_ms=20000",
    "serving.smoke_requests=10",
    "serving.smoke_candidates=20",
    "serving.log_flush_seconds=0.2",
    "serving.routing_poll_seconds=0.1",
    "serving.input_log.share=1.0",
]
JSON = {"Content-Type": "application/json"}
ASKED = datetime(2026, 1, 19, 8, 30, tzinfo=UTC)  # after the store's instant, so that nothing is cut


@dataclass
class Live:
    """The running service and what it was made of."""

    config: Config
    folder: Path  # features, champion, candidate, deployment
    log: Path
    url: str
    http: httpx.Client
    answered: list[str]

    def post(self, body, headers=JSON, path="/rank"):
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.http.post(path, content=content, headers=headers)

    def rank(self, **fields):
        body = {"user_id": "u3", "query": "red shoe", "item_ids": [f"i{item}" for item in range(12)], **fields}
        body.setdefault("ts", ASKED.isoformat())
        answer = self.post(body)
        assert answer.status_code == 200, answer.text
        self.answered.append(answer.json()["request_id"])
        return answer.json()


def build(folder: Path, *settings: str) -> tuple[Config, Path]:
    """A folder with features, two models and their deployment."""
    import torch

    from features.build import build_features
    from models.checkpoint import save_model
    from models.zoo import build_model
    from serving.deploy import package
    from tests.features.log_folder import random_logs
    from uniscale.samples import SampleSpec

    torch.set_num_threads(1)
    config = load_config(overrides=[*SETTINGS, *settings])
    build_features(config, random_logs().write(folder / "logs"), folder / "features")
    spec = SampleSpec.load(folder / "features")
    variants = {"champion": folder / "champion", "candidate": folder / "candidate"}
    for seed, (name, model) in enumerate(zip(("dlrm_mlp", "hhsft"), variants.values(), strict=True)):
        save_model(build_model(name, spec, config.model, seed), model, seed)
    package(config, folder / "features", variants, {"champion": "1", "candidate": "2"}, folder / "deployment")
    return config, folder


@contextmanager
def serve(packaged: tuple[Config, Path], folder: Path, *settings: str) -> Iterator[Live]:
    """The deployment as a process; settings are of the process, what the worker reads is in the deployment."""
    from serving.deploy import running

    config = override(packaged[0], settings)
    with (
        running(config, packaged[1] / "deployment", folder / "log") as url,
        httpx.Client(base_url=url, timeout=30) as http,
    ):
        yield Live(config, packaged[1], folder / "log", url, http, [])
