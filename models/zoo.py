"""The model zoo: every architecture by name. `models/README.md` tells how to add one.

A network takes the blocks of `models.inputs` and answers logits (N, T); `build_model` wraps it with its inputs.
"""

from collections.abc import Callable, Collection

import torch
from torch import nn

from models.backbones import BACKBONES
from models.encode_then_interact import EncodeThenInteract
from models.encoders import ENCODERS, build_encoder
from models.est import EST
from models.heads import HEADS
from models.hhsft import HHSFT
from models.inputs import Inputs, Widths
from models.mdl import MDL, extra_embeddings
from models.ranking import RankingModel
from uniscale.config import nearest
from uniscale.errors import ModelError
from uniscale.model_sections import ModelConfig
from uniscale.samples import SampleSpec

__all__ = ["BACKBONES", "ENCODERS", "HEADS", "ZOO", "build_model", "check_name"]

Builder = Callable[[SampleSpec, Widths, ModelConfig], nn.Module]


def _dlrm_mlp(spec: SampleSpec, widths: Widths, config: ModelConfig) -> nn.Module:
    encoder = build_encoder(config.encoder, widths)
    request, candidate = sum(widths.request.values()), sum(widths.candidate.values())
    if encoder is not None and encoder.per_candidate:
        candidate += encoder.width
    elif encoder is not None:
        request += encoder.width
    backbone = BACKBONES["mlp"](request, candidate, config.dlrm_mlp.hidden, config.dropout)
    return EncodeThenInteract(encoder, backbone, HEADS["single"](config.dlrm_mlp.hidden[-1], len(spec.tasks)))


ZOO: dict[str, Builder] = {"dlrm_mlp": _dlrm_mlp, "hhsft": HHSFT, "est": EST, "mdl": MDL}

# Entries with embeddings besides those of the blocks: `extra` of `models.inputs.Inputs`.
EXTRA: dict[str, Callable[[ModelConfig], dict[str, list[str]]]] = {"mdl": extra_embeddings}


def check_name(name: str, known: Collection[str] = ZOO.keys()) -> None:
    """Refuse a name outside the zoo.

    Raises:
        ModelError: no such model; the message has the nearest name.
    """
    if name not in known:
        raise ModelError(f"model {name!r} is unknown{nearest(name, sorted(known))}")


def build_model(name: str, spec: SampleSpec, config: ModelConfig, seed: int) -> RankingModel:
    """A freshly initialised model; the same seed gives the same weights, whatever was drawn before.

    Raises:
        ModelError: an unknown model or encoder, or a spec without any feature of the candidates.
    """
    check_name(name)
    if not spec.select("candidate") and not spec.content_dim + spec.text_dim:
        raise ModelError("the spec has no feature of the candidates: all candidates of a request would score the same")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        extra = EXTRA[name](config) if name in EXTRA else None
        inputs = Inputs(spec, config.embedding_dim, config.table_rows, seed, extra)
        network = ZOO[name](spec, inputs.widths, config)
    return RankingModel(name, spec, config, inputs, network)
