"""Sequence encoders by name, and the history block that one adds to the blocks of a batch."""

from dataclasses import replace

from models.encoders.base import Encoder
from models.encoders.din import DIN, StackDIN
from models.encoders.longer import Longer
from models.encoders.mean import MeanPooling
from models.encoders.transformer import TransformerEncoder
from models.inputs import Blocks, Widths
from uniscale.model_sections import ModelConfig

__all__ = [
    "DIN",
    "ENCODERS",
    "Encoder",
    "Longer",
    "MeanPooling",
    "StackDIN",
    "TransformerEncoder",
    "add_history",
    "build_encoder",
    "history_widths",
]

ENCODERS: dict[str, type[Encoder]] = {
    "mean": MeanPooling,
    "din": DIN,
    "stackdin": StackDIN,
    "transformer": TransformerEncoder,
    "longer": Longer,
}


def build_encoder(widths: Widths, model: ModelConfig) -> Encoder | None:
    """The encoder that `model.encoder` names; None where the samples have no history."""
    return ENCODERS[model.encoder](widths, model) if widths.behaviour else None


def history_widths(encoder: Encoder | None, widths: Widths) -> Widths:
    """Widths of the blocks after `add_history`."""
    if encoder is None:
        return widths
    own = {"behaviour": encoder.width}
    features = widths.features | {"behaviour": own}
    if encoder.per_candidate:
        return replace(widths, candidate=widths.candidate | own, features=features)
    return replace(widths, request=widths.request | own, features=features)


def add_history(encoder: Encoder | None, blocks: Blocks) -> Blocks:
    """The blocks with the encoded history as one more, "behaviour", of the encoder's level."""
    if encoder is None:
        return blocks
    own = {"behaviour": encoder(blocks)}
    if encoder.per_candidate:
        return replace(blocks, candidate=blocks.candidate | own)
    return replace(blocks, request=blocks.request | own)
