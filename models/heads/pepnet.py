"""PEPNet, parameter and embedding personalised network (Chang et al. 2023).

    Gate NU     g(x) = 2 σ(W' ReLU(W x + b) + b')
    EPNet       O_ep = g_ep([domain; sg(E)]) ⊙ E
    PPNet       H_k ← g_pp([user; item; sg(O_ep)])_k ⊙ H_k, each hidden layer of task k's tower

E is all embeddings; sg stops the gradient, so that the gates do not train the shared inputs they only read. The gate of
the embeddings depends on the candidate, hence all embeddings are a candidate's after it: this head gives up the
backbone's work once a request. The prior is the user and the item block (the paper's author has no counterpart). Towers
are a task's, for every domain: domains act through EPNet alone, by the row of their embedding.

Shapes: R requests, N candidates, T tasks, w width of all embeddings.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch
from models.heads.base import Head, HeadSizes
from models.inputs import Blocks, Widths
from models.layers import MixedLinear, TokenLinear


class GateNU(nn.Module):
    """Two layers to a gate in (0, 2); the request's share of the first once a request."""

    def __init__(self, request_width: int, candidate_width: int, hidden: int, out: int):
        super().__init__()
        self.first = MixedLinear(request_width, candidate_width, hidden)
        self.last = nn.Linear(hidden, out)

    def forward(self, request: Tensor, candidate: Tensor, batch: Batch) -> Tensor:
        """(R, ·) and (N, ·) to (N, out)."""
        return 2.0 * torch.sigmoid(self.last(F.relu(self.first(request, candidate, batch))))


class PEPNet(Head):
    """EPNet before the backbone, PPNet in the towers behind it."""

    def __init__(self, sizes: HeadSizes):
        super().__init__(sizes)
        blocks, hidden, tasks = sizes.blocks, sizes.config.gate_hidden, sizes.tasks
        (of_request, of_candidate), dim = blocks.flat(), sizes.model.embedding_dim
        self.indicator = nn.Embedding(sizes.domains, dim)
        self.epnet = GateNU(dim + of_request, of_candidate, hidden, of_request + of_candidate)
        user, everything = blocks.request.get("user", 0), of_request + of_candidate
        widths = sizes.config.tower_hidden
        self.ppnet = nn.ModuleList(
            GateNU(user, blocks.candidate["item"] + everything, hidden, tasks * width) for width in widths
        )
        self.layers = nn.ModuleList(
            TokenLinear(tasks, width, out)  # a task's own map
            for width, out in zip([sizes.width, *widths], [*widths, 1], strict=True)
        )
        self.tasks = tasks

    @classmethod
    def embedded_widths(cls, widths: Widths) -> Widths:
        """Every block is a candidate's once EPNet has gated it."""
        return replace(widths, request={}, candidate=widths.request | widths.candidate)

    def embed(self, blocks: Blocks) -> Blocks:
        """O_ep: all blocks gated, (N, ·) each."""
        batch, (of_request, of_candidate) = blocks.batch, blocks.flat()
        known = torch.cat([self.indicator(self.domain(batch)), of_request.detach()], dim=-1)
        gate = self.epnet(known, of_candidate.detach(), batch)  # (N, w)
        all_blocks = {name: batch.expand(value) for name, value in blocks.request.items()} | blocks.candidate
        gates = gate.split([value.shape[-1] for value in all_blocks.values()], dim=-1)
        gated = {name: value * own for (name, value), own in zip(all_blocks.items(), gates, strict=True)}
        return replace(blocks, request={}, candidate=gated)

    def forward(self, x: Tensor, blocks: Blocks, embedded: Blocks) -> Tensor:
        """(N, width) to (N, T)."""
        batch = blocks.batch
        user = blocks.request.get("user", blocks.flat()[0][:, :0])
        prior = torch.cat([blocks.candidate["item"], embedded.flat()[1].detach()], dim=-1)
        h = x.unsqueeze(1).expand(-1, self.tasks, -1)  # (N, T, width)
        for number, gate in enumerate(self.ppnet):
            h = gate(user, prior, batch).unflatten(-1, (self.tasks, -1)) * F.silu(self.layers[number](h))
        logits: Tensor = self.layers[-1](h).squeeze(-1)
        return logits
