"""Why a batch gives numbers that are not finite: the end of the message of a training or an evaluation that stops."""

from models.batches import Batch
from uniscale.samples import SampleSpec

VECTORS = ("query_text", "candidate_content", "candidate_text", "behaviour_content", "behaviour_text", "labels")


def cause(batch: Batch, spec: SampleSpec) -> str:
    """The input at fault, or what to do where none is."""
    culprit = guilty_feature(batch, spec)
    return f"{culprit} is not finite there" if culprit else "no input is at fault: lower train.learning_rate"


def guilty_feature(batch: Batch, spec: SampleSpec) -> str | None:
    """Name of the first input of a batch with an infinite number or a vector that is not finite, None without one."""
    for level in ("request", "candidate", "behaviour"):
        values = getattr(batch, f"{level}_numbers").flatten(0, -2)
        for place, feature in enumerate(spec.select(level, ("count", "number"))):
            if values[:, place].isinf().any():  # NaN is a missing number
                return feature.name
    return next((name for name in VECTORS if not getattr(batch, name).isfinite().all()), None)
