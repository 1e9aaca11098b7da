"""Softmax attention as one autograd node, with its log-sum-exp: fewer passes over the scores than autograd would make.

Two facts of torch's CPU kernels shape it. A softmax over a narrow last dimension costs about 100 ns a row, so one over
few keys is taken with the rows innermost. `exp` of an argument that underflows costs 10 to 40 times one that does not,
so masked scores meet `softmax`, never a bare `exp`.

With P = softmax(S), S = q kᵀ / √e + bias, O = P v and l = log Σ_j exp s_j, the backward pass is
dS = P ∘ (dO vᵀ − rowsum(dO ∘ O) + dl).

On CUDA the scores of many keys are never stored: torch's memory-efficient kernels give the log-sum-exp too. Their
backward pass has no place for dl, so it is told of an output O' = O − dO · dl / |dO|², for which rowsum(dO ∘ O') is
rowsum(dO ∘ O) − dl. A row without dO passes on nothing of dl, which is right where parts are merged: there dl is a
product of dO.

Shapes: B rows, H heads, n queries, p keys, e width of a head.
"""

from typing import Any

import torch
from torch import Tensor

NARROW = 16  # keys
NAIVE = 400  # multiplications of a small product, below which torch's bmm is a plain loop on CPU
FEW = 64  # keys: their scores are cheaper to store than a CUDA kernel's tile of 64 or 128 is to fill
ALIGNED, BIAS_ALIGNED = 8, 16  # elements: what the CUDA kernels ask of a head's width and of a bias's rows
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
    if q.device.type == "cuda" and k.shape[2] > FEW and q.shape[-1] % ALIGNED == 0:
        return _on_cuda(q, k, v, mask)
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
        scores.add_(bias)
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


def _on_cuda(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else q.dtype
    bias = None
    if mask is not None:
        rows = -(-mask.shape[-1] // BIAS_ALIGNED) * BIAS_ALIGNED
        bias = q.new_zeros(*mask.shape[:-1], rows, dtype=kind)[..., : mask.shape[-1]]
        bias.masked_fill_(~mask, torch.finfo(kind).min / 2)
    out, total = _Fused.apply(q.to(kind), k.to(kind), v.to(kind), bias)
    if mask is not None:
        total = total.masked_fill(~mask.any(-1, keepdim=True), LOWEST)
    return out, total


class _Fused(torch.autograd.Function):
    """`_forward` and its gradient by the CUDA kernels that keep no scores."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        wide = None if bias is None else bias.expand(*q.shape[:3], -1)
        out, total, *random = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, wide, True)
        ctx.save_for_backward(q, k, v, out, total, *random, *(() if wide is None else (wide,)))
        ctx.set_materialize_grads(False)
        return out, total[..., : q.shape[2]].unsqueeze(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, out, total, *random_and_bias = ctx.saved_tensors
        of_out, of_total = gradients
        if of_out is None:
            raise RuntimeError("a gradient of the log-sum-exp alone: on CUDA it is taken beside the output's")
        if of_total is not None:
            upstream = of_out.float()
            size = upstream.square().sum(-1, keepdim=True)
            out = (out - upstream * torch.where(size > 0, of_total / size, 0.0)).to(out.dtype)
        seed, offset, *bias = random_and_bias
        *found, _ = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
            of_out, q, k, v, bias[0] if bias else None, out, total, seed, offset, 0.0, [True, True, True, False]
        )
        return *found, None
