"""A Transformer over the history, once a request, then target attention of each candidate over its outcome.

Self-attention is that of Vaswani et al. 2017 in its pre-norm form, without a causal mask, for nothing of the future is
in a history. Target attention in place of BST's (Chen et al. 2019) candidate inside the sequence: that would run the
whole Transformer once a candidate. The candidate attends to the history and to itself, so an empty history leaves it.

Shapes: R requests, N candidates, L the longest history, d width.
"""

from torch import Tensor, nn

from models.encoders.attention import AttentionBlock, reachable
from models.encoders.base import Encoder
from models.inputs import Blocks, Widths
from uniscale.model_sections import ModelConfig


class TransformerEncoder(Encoder):
    """Blocks of self-attention over a history, one of target attention."""

    per_candidate = True

    def __init__(self, widths: Widths, model: ModelConfig):
        super().__init__(widths, model)
        config = model.transformer
        self.width = config.dim
        self.behaviour = nn.Linear(widths.behaviour, config.dim)
        self.item = nn.Linear(widths.candidate["item"], config.dim)
        self.blocks = nn.ModuleList(
            AttentionBlock(config.dim, config.heads, config.ffn_multiple, model.dropout) for _ in range(config.layers)
        )
        self.target = AttentionBlock(config.dim, config.heads, config.ffn_multiple, model.dropout)

    def forward(self, blocks: Blocks) -> Tensor:
        """(N, d)."""
        batch = blocks.batch
        mask = batch.behaviour_mask
        x = self.behaviour(blocks.behaviours)  # (R, L, d)
        for block in self.blocks:
            assert isinstance(block, AttentionBlock)
            x = block(x, block.memory(x, mask), reachable(mask, causal=False))
        target = batch.grid(self.item(blocks.candidate["item"]))  # (R, C, d)
        return batch.ungrid(self.target.beside(target, self.target.memory(x, mask)))
