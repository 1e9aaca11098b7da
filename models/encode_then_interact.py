"""Encode-then-interact models: a sequence encoder, a backbone over all block embeddings, a head over domains and tasks.

DLRM-MLP, the base model of UniScale 4.1.2 after Naumov et al. 2019, is the MLP backbone; its history encoder is DIN
(Zhou et al. 2018) by default. Every other backbone takes its place with the same encoders and heads.

Shapes: R requests, N candidates, T tasks.
"""

from copy import deepcopy

from torch import Tensor, nn

from models.backbones import BACKBONES
from models.encoders import add_history, build_encoder, history_widths
from models.heads import HEADS
from models.heads.base import HeadSizes
from models.inputs import Blocks, Widths
from uniscale.model_sections import ModelConfig
from uniscale.samples import SampleSpec


class EncodeThenInteract(nn.Module):
    """Blocks to logits (N, T): histories are encoded, all blocks crossed, and read out."""

    def __init__(self, backbone: str, spec: SampleSpec, widths: Widths, model: ModelConfig):
        super().__init__()
        self.encoder = build_encoder(widths, model)
        widths = history_widths(self.encoder, widths)
        head = HEADS[model.head]
        self.backbone = BACKBONES[backbone](head.embedded_widths(widths), model)
        self.head = head(HeadSizes(self.backbone.width, widths, len(spec.domains), len(spec.tasks), model))

    def forward(self, blocks: Blocks) -> Tensor:
        """Logits (N, T) of each row's own domain."""
        blocks = add_history(self.encoder, blocks)
        embedded = self.head.embed(blocks)
        logits: Tensor = self.head(self.backbone(embedded), blocks, embedded)
        return logits

    def fixed_domain(self, domain: int = 0) -> "EncodeThenInteract":
        """A copy that serves one domain, without the other domains' own parts of the head."""
        copy = deepcopy(self)
        copy.head = self.head.fixed_domain(domain)
        return copy
