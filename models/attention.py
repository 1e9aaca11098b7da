"""Softmax attention as one autograd node, with its log-sum-exp: fewer passes over the scores than autograd would make.

Two facts of torch's CPU kernels shape it. A softmax over a narrow last dimension costs about 100 ns a row, so one over
few keys is taken with the rows innermost. `exp` of an argument that underflows costs 10 to 40 times one that does not,
so masked scores meet `softmax`, never a bare `exp`.

With P = softmax(S), S = q kᵀ / √e + bias, O = P v and l = log Σ_j exp s_j, the backward pass is
dS = P ∘ (dO vᵀ − rowsum(dO ∘ O) + dl).

Shapes: B rows, H heads, n queries, p keys, e width of a head.
"""

from typing import Any

import torch
from torch import Tensor

NARROW = 16  # keys
NAIVE = 400  # multiplications of a small product, below which torch's bmm is a plain loop on CPU
LOWEST = torch.finfo(torch.float32).min / 2  # of a masked score, to which another may be added without overflow


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension."""
    if scores.device.type != "cpu" or torch.compiler.is_compiling() or scores.shape[-1] > NARROW:
        return torch.softmax(scores, dim=-1)
    return torch.softmax(scores.movedim(-1, 0).contiguous(), dim=0).movedim(0, -1).contiguous()


def attend_part(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √e) v over one part of the keys, (B, H, n, e), and its log-sum-exp, (B, H, n, 1), in float32.

    Args:
        q: (B, H, n, e).
        k, v: (B, H, p, e).
        mask: which keys exist, (B or 1, 1, n or 1, p). Where none does, the output is finite and the sum below
            LOWEST / 2, so that the part weighs nothing.
    """
    if k.shape[2] == 0:
        return torch.zeros_like(q), q.new_full((*q.shape[:-1], 1), -torch.inf, dtype=torch.float32)
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, device=q.device).masked_fill_(~mask, LOWEST)
    if torch.compiler.is_compiling():
        out, total, _ = _forward(q, k, v, bias)
        return out, total
    if q.device.type == "cpu" and not torch.is_grad_enabled() and k.shape[2] > NARROW and q.dtype != torch.float16:
        # the CPU's fused kernel; it has no public name that returns the log-sum-exp, and no gradient for it
        wide = None if bias is None else bias.to(q.dtype).expand(q.shape[0], -1, q.shape[2], -1)
        k, v = k.to(q.dtype), v.to(q.dtype)  # autocast leaves this kernel alone
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=wide)
        return out, total.unsqueeze(-1)
    q, k, v = (x.contiguous() for x in (q, k, v))  # once, as every product below would copy a strided one
    found: tuple[Tensor, Tensor] = _Attention.apply(q, k, v, bias)
    return found


def _forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
    if bias is not None:
        scores = scores + bias
    weights = softmax(scores)
    total = scores.amax(-1, keepdim=True) - weights.amax(-1, keepdim=True).log()  # as w_j = exp(s_j - total)
    return weights.to(v.dtype) @ v, total, weights


class _Attention(torch.autograd.Function):
    """`_forward` and its gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        out, total, weights = _forward(q, k, v, bias)
        ctx.save_for_backward(q, k, v, out, weights)
        ctx.set_materialize_grads(False)
        return out, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, out, weights = ctx.saved_tensors
        of_out, of_total = gradients
        of_out = torch.zeros_like(out) if of_out is None else of_out
        change = (of_out * out).sum(-1, keepdim=True, dtype=torch.float32)
        if of_total is not None:
            change = change - of_total
        scores = (of_out @ v.to(of_out.dtype).transpose(-1, -2)).float().sub_(change).mul_(weights)
        scores = scores.mul_(q.shape[-1] ** -0.5).to(q.dtype)
        return (
            scores @ k.to(q.dtype),
            (scores.transpose(-1, -2) @ q).to(k.dtype),
            (weights.to(of_out.dtype).transpose(-1, -2) @ of_out).to(v.dtype),
            None,
        )
