"""A ranking model: inputs, a network of the zoo, the base rates it starts from, and the calibration of its scores.

Shapes: R requests, N candidates, D domains, T tasks.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.batches import Batch
from models.inputs import Blocks, Inputs
from models.rows import Rows
from uniscale.errors import ModelError
from uniscale.model_sections import ModelConfig
from uniscale.samples import SampleSpec


class RankingModel(nn.Module):
    """`model(batch)` gives logits (N, T), `model.score(batch)` calibrated probabilities (N, T)."""

    prior: Tensor
    slope: Tensor
    intercept: Tensor

    def __init__(self, name: str, spec: SampleSpec, config: ModelConfig, inputs: Inputs, network: nn.Module):
        super().__init__()
        self.name, self.spec, self.config = name, spec, config
        self.inputs, self.network = inputs, network
        tasks = len(spec.tasks)
        # Log-odds of each domain's base rate: the network learns the departure from them, not the rates themselves.
        self.register_buffer("prior", torch.zeros(len(spec.domains), tasks))
        self.register_buffer("slope", torch.ones(tasks), persistent=False)
        self.register_buffer("intercept", torch.zeros(tasks), persistent=False)

    def fit(self, rows: Rows) -> None:
        """Take the inputs' statistics and the base rates from training rows, before the first step."""
        self.inputs.fit(rows)
        domain = rows.domain[rows.request_of]
        for d in range(len(self.spec.domains)):
            labels = rows.labels[domain == d]
            rate = (labels.sum(axis=0) + 0.5) / (len(labels) + 1.0)  # half a positive keeps the log-odds finite
            self.prior[d] = torch.from_numpy(np.log(rate / (1.0 - rate)))

    def forward(self, batch: Batch) -> Tensor:
        """Logits (N, T) of each candidate's own domain."""
        return self.logits(self.inputs(batch))

    def logits(self, blocks: Blocks, **cached: Any) -> Tensor:
        """The same from the batch's blocks; `cached` is what the network need not compute again."""
        logits: Tensor = self.network(blocks, **cached)
        return logits + blocks.batch.expand(self.prior.index_select(0, blocks.batch.domain))

    @torch.inference_mode()
    def score(self, batch: Batch) -> Tensor:
        """Probabilities (N, T): σ(a · logit + b), with a = 1 and b = 0 until the model has been calibrated."""
        return self.probabilities(self(batch))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated, (N, T)."""
        return torch.sigmoid(self.slope * logits.float() + self.intercept)

    def calibrate(self, calibration: Mapping[str, Mapping[str, float]]) -> None:
        """Set a and b of tasks, e.g. {"click": {"a": 0.9, "b": -0.1}}; a task left out keeps a = 1 and b = 0.

        Raises:
            ModelError: an unknown task, a key other than a and b, a value that is not finite, or a not above 0
                (scores would rank the other way round).
        """
        for task, values in calibration.items():
            if task not in self.spec.tasks:
                raise ModelError(f"calibration of unknown task {task!r}; the model's tasks are {self.spec.tasks}")
            finite = set(values) == {"a", "b"} and bool(np.isfinite([values["a"], values["b"]]).all())
            if not finite or values["a"] <= 0:
                raise ModelError(f"calibration of {task} is {dict(values)}; it needs finite a > 0 and b")
            place = self.spec.tasks.index(task)
            self.slope[place], self.intercept[place] = values["a"], values["b"]

    def search_export(self) -> "RankingModel":
        """The form that serves the target domain alone; its scores equal this model's on that domain.

        A network that keeps parts for one domain (`fixed_domain`) drops the others' parts; any other is copied whole.
        """
        copy = deepcopy(self)
        fixed = getattr(self.network, "fixed_domain", None)
        if fixed is not None:
            copy.network = fixed(0)
        return copy.eval()
