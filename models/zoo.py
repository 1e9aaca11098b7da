"""The model zoo: every architecture by name. `models/README.md` tells how to add one.

A network takes the blocks of `models.inputs` and answers logits (N, T); `build_model` wraps it with its inputs.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from models.backbones import BACKBONES
from models.encode_then_interact import EncodeThenInteract
from models.encoders import ENCODERS
from models.est import EST
from models.heads import HEADS
from models.hhsft import HHSFT
from models.inputs import Inputs, Widths
from models.mdl import MDL, extra_embeddings
from models.mtgr import MTGR
from models.onetrans import OneTrans
from models.ranking import RankingModel
from uniscale.config import nearest
from uniscale.errors import ModelError
from uniscale.model_sections import ModelConfig
from uniscale.samples import SampleSpec

__all__ = ["BACKBONES", "ENCODERS", "ENCODE_THEN_INTERACT", "HEADS", "ZOO", "build_model", "spec_of"]

Builder = Callable[[SampleSpec, Widths, ModelConfig], nn.Module]


ENCODE_THEN_INTERACT: dict[str, Builder] = {
    "dlrm_mlp": partial(EncodeThenInteract, "mlp"),
    "dcnv2": partial(EncodeThenInteract, "dcnv2"),
    "autoint": partial(EncodeThenInteract, "autoint"),
    "hiformer": partial(EncodeThenInteract, "hiformer"),
    "wukong": partial(EncodeThenInteract, "wukong"),
    "rankmixer": partial(EncodeThenInteract, "rankmixer"),
}
ZOO: dict[str, Builder] = {
    **ENCODE_THEN_INTERACT,
    "hhsft": HHSFT,
    "onetrans": OneTrans,
    "onetrans_d": partial(OneTrans, form="din"),
    "onetrans_f": partial(OneTrans, form="full"),
    "est": EST,
    "mdl": MDL,
    "mtgr": MTGR,
}


# Entries with embeddings besides those of the blocks: `extra` of `models.inputs.Inputs`.
EXTRA: dict[str, Callable[[ModelConfig], dict[str, list[str]]]] = {"mdl": extra_embeddings}


def spec_of(name: str, offered: SampleSpec, config: ModelConfig) -> SampleSpec:
    """What an entry reads of what the samples offer (`model.unread`)."""
    return offered.without({view for entry, views in config.unread.items() if entry == name for view in views})


def build_model(name: str, spec: SampleSpec, config: ModelConfig, seed: int) -> RankingModel:
    """A freshly initialised model; the same seed gives the same weights, whatever was drawn before.

    Raises:
        ModelError: an unknown model, or a spec without features of the candidates, of items or of requests.
    """
    if name not in ZOO:
        raise ModelError(f"model {name!r} is unknown{nearest(name, list(ZOO))}")
    if not spec.select("candidate") and not spec.content_dim + spec.text_dim:
        raise ModelError("the spec has no feature of the candidates: all candidates of a request would score the same")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        extra = EXTRA[name](config) if name in EXTRA else None
        tiers = 0 if name == "est" else config.simtier_tiers  # EST's `content` decides about its own
        inputs = Inputs(spec, config.embedding_dim, config.table_rows, seed, extra, tiers)
        if "item" not in inputs.widths.candidate:
            raise ModelError(
                f"the spec has no candidate feature of the block 'item', by which candidates meet the history; its "
                f"blocks are {', '.join(inputs.widths.candidate)}: give the items' features that block"
            )
        if not inputs.widths.request:
            raise ModelError(
                "the spec has no feature of requests: add one of the blocks user, query or context, or scenarios"
            )
        network = ZOO[name](spec, inputs.widths, config)
    return RankingModel(name, spec, config, inputs, network)
