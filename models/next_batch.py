"""Next-batch evaluation (OneTrans 4.1.2): every batch is predicted in evaluation mode, then trained on, by time.

The measures are of the predictions on the target domain's exposed rows with in-domain labels, whatever rows are trained
on. AUC and UAUC are also taken within each day and averaged over the days, as the paper does.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.batches import Batch
from models.cells import group_codes
from models.data import Reader
from models.metrics import auc, gauc, qauc, uauc
from models.ranking import RankingModel
from uniscale.samples import LabelSource, Sampling

DAY_SECONDS = 86_400


class NextBatch:
    """Logits of every training row, (N, T), each by the model as it was before it saw that row."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    @torch.no_grad()
    def predict(self, model: RankingModel, batch: Batch) -> None:
        """Keep the logits of a batch; the model goes back to training mode."""
        model.eval()
        self.logits.append(model(batch).float().cpu())
        model.train()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"next_batch": torch.cat(self.logits)} if self.logits else {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self.logits = [tensors["next_batch"]] if tensors else []

    def measure(self, reader: Reader) -> dict[str, dict[str, float | None]]:
        """AUC, GAUC by (user, query), and daily AUC and UAUC averaged over days, of each task; null where undefined.

        Args:
            reader: in order of time, as the logits are.
        """
        logits, start = torch.cat(self.logits).numpy(), 0
        columns: dict[str, list[Any]] = {name: [] for name in ("labels", "logits", "user", "query", "day")}
        for rows in reader.in_time(keys=("user_id", "query")):
            assert rows.keys is not None and rows.label_source is not None
            own = logits[start : start + rows.candidates]
            start += rows.candidates
            shown = (rows.sampling == Sampling.EXPOSED) & (rows.domain == 0)[rows.request_of]
            request = rows.request_of[shown]
            columns["labels"].append((rows.labels * (rows.label_source == LabelSource.IN_DOMAIN))[shown])
            columns["logits"].append(own[shown])
            columns["user"].append(rows.keys["user_id"].to_numpy()[request])
            columns["query"].append(rows.keys["query"].to_numpy()[request])
            columns["day"].append(rows.ts[request] // DAY_SECONDS)
        assert start == len(logits), (start, len(logits))
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        users, days = group_codes(joined["user"]), group_codes(joined["day"])
        groups = group_codes(joined["user"], joined["query"])
        found = {}
        for place, task in enumerate(reader.spec.tasks):
            y, x = joined["labels"][:, place], joined["logits"][:, place].astype(np.float64)
            values = {"auc": auc(y, x), "gauc": gauc(y, x, groups)}
            values |= {"daily_auc": qauc(y, x, days), "uauc": uauc(y, x, users, days)}
            found[task] = {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
        return found
