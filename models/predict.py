"""Scores of whole row sets, and the measures by which training stops early."""

from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from models.blame import cause
from models.cells import group_codes
from models.data import in_order
from models.metrics import auc, gauc
from models.ranking import RankingModel
from models.rows import ItemVectors, Rows
from uniscale.errors import DataError, ModelError


@torch.inference_mode()
def predict_logits(
    model: RankingModel, rows: Rows, vectors: ItemVectors, batch_samples: int = 4096
) -> NDArray[np.float32]:
    """Uncalibrated logits (N, T) of every candidate, in the rows' order; the model's mode is left as it was.

    Raises:
        ModelError: logits that are not finite, with the batch, the days it is of, and the feature to blame.
    """
    training, device = model.training, model.prior.device
    model.eval()
    found = []
    for number, batch in enumerate(in_order(rows, vectors, batch_samples), 1):
        found.append(model(batch.to(device)).float().cpu().numpy())
        if not np.isfinite(found[-1]).all():
            first, last = (datetime.fromtimestamp(ts, UTC).date() for ts in (rows.ts.min(), rows.ts.max()))
            raise ModelError(
                f"the scores of batch {number} of the rows of {first} to {last} are not finite: "
                f"{cause(batch, rows.spec)}"
            )
    model.train(training)
    return np.concatenate(found)


def validation(
    labels: NDArray[np.float32], logits: NDArray[np.float32], rows: Rows
) -> dict[str, dict[str, float | None]]:
    """AUC, GAUC by (user, query) and log-loss of each task; a measure without both classes is None.

    Args:
        labels, logits: (N, T).
        rows: with the keys user_id and query.
    """
    assert rows.keys is not None
    groups = group_codes(rows.keys["user_id"], rows.keys["query"])[rows.request_of]
    found: dict[str, dict[str, float | None]] = {}
    for place, task in enumerate(rows.spec.tasks):
        y, x = labels[:, place], logits[:, place].astype(np.float64)
        values = {
            "gauc": gauc(y, x, groups),
            "auc": auc(y, x),
            "log_loss": float(np.mean(np.logaddexp(0.0, x) - y * x)),
        }
        found[task] = {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
    return found


def stopping_value(measures: dict[str, dict[str, float | None]], task: str) -> tuple[str, float]:
    """The measure that early stopping follows, larger being better: GAUC, or AUC where no group has both classes.

    Raises:
        DataError: the validation rows have one class only.
    """
    for name in ("gauc", "auc"):
        value = measures[task][name]
        if value is not None:
            return name, value
    raise DataError(f"the validation rows hold one class of {task} only: give samples.valid_days more days")
