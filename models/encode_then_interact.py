"""Encode-then-interact models: a sequence encoder, a backbone over all block embeddings, a head.

DLRM-MLP is the base model of UniScale 4.1.2, "the vanilla MLP for feature crossing" after Naumov et al. 2019; its
history encoder is DIN (Zhou et al. 2018) by default.

Shapes: R requests, N candidates, T tasks.
"""

import torch
from torch import Tensor, nn

from models.encoders import Encoder
from models.inputs import Blocks


class EncodeThenInteract(nn.Module):
    """Blocks to logits (N, T): histories are encoded, features concatenated by level, crossed, and read out."""

    def __init__(self, encoder: Encoder | None, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.encoder, self.backbone, self.head = encoder, backbone, head

    def forward(self, blocks: Blocks) -> Tensor:
        """Logits (N, T)."""
        request, candidate = list(blocks.request.values()), list(blocks.candidate.values())
        if self.encoder is not None:
            (candidate if self.encoder.per_candidate else request).append(self.encoder(blocks))
        x = self.backbone(torch.cat(request, dim=-1), torch.cat(candidate, dim=-1), blocks.batch)
        logits: Tensor = self.head(x, blocks.batch)
        return logits
