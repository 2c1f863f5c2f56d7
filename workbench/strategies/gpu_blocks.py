"""Attention to one block of keys on a GPU, forward and backward, as a ring needs it.

By torch's fused kernels where they take the block, else written out.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.strategies.masks import causal_part

aten = torch.ops.aten
#: A dimension of a kernel's grid. Source: CUDA C++ Programming Guide, compute capabilities.
_MOST_SEQUENCES = 65_536
#: A kernel of torch's, or none.
Fused = Literal["flash", "efficient", ""]


def forward(q, k, v, causal: bool, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output, and log-sum-exp of the scores: ``attention.attention_with_lse``."""
    if k.shape[1] < q.shape[1]:
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    fused = fused_kernel(q, k, v, causal, mask)
    if fused == "flash":
        return aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)[:2]
    if fused == "efficient":
        options = {"compute_log_sumexp": True, "is_causal": causal}
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, **options)
        return out, lse[..., : q.shape[2]]
    scores = _scores(q, k, causal, mask)
    lse = scores.logsumexp(-1)
    seen = scores - torch.where(lse.isinf(), 0.0, lse)[..., None]
    return seen.exp().to(v.dtype) @ v, lse


def backward(
    grad, q, k, v, out, lse, causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v: ``attention.attention_backward``.

    Written out, with ``P = exp(q k^T / sqrt(c) - lse)`` this block's probabilities and ``D`` the
    row sums of ``grad * out``: ``dv = P^T grad``, ``dS = P * (grad v^T - D)``, ``dq = dS k``,
    ``dk = dS^T q``.
    Source: Dao et al. (2022), FlashAttention, arXiv:2205.14135, algorithm 4.
    """
    heads = k.shape[1]
    if heads < q.shape[1]:
        k, v = (t.repeat_interleave(q.shape[1] // heads, 1) for t in (k, v))
    fused = fused_kernel(q, k, v, causal, mask)
    if fused:
        dq, dk, dv = _fused_backward(fused, grad, q, k, v, out, lse, causal)
    else:
        grad, q, k, v, out = (t.to(lse.dtype) for t in (grad, q, k, v, out))
        p = (_scores(q, k, causal, mask) - lse[..., None]).exp()
        ds = p * (grad @ v.mT - (grad * out).sum(-1, keepdim=True)) * q.shape[-1] ** -0.5
        dq, dk, dv = ds @ k, ds.mT @ q, p.mT @ grad
    if heads < q.shape[1]:
        dk, dv = (t.unflatten(1, (heads, -1)).sum(2) for t in (dk, dv))
    return dq, dk, dv


def fused_kernel(q, k, v, causal: bool, mask: Tensor | None) -> Fused:
    """Which kernel computes this block, if any does.

    They want rows of whole 16 bytes and fewer than 65,536 sequences, and know no mask of ours;
    flash draws the causal mask from the other end where there are more keys than queries.
    """
    ragged = q.shape[3] * q.itemsize % 16 or (causal and q.shape[2] != k.shape[2])
    if mask is not None or ragged or len(q) >= _MOST_SEQUENCES:
        return ""
    asked = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, causal, False)
    if torch.backends.cuda.can_use_flash_attention(asked):
        return "flash"
    return "efficient" if torch.backends.cuda.can_use_efficient_attention(asked) else ""


def _fused_backward(fused: Fused, grad, q, k, v, out, lse, causal) -> tuple[Tensor, Tensor, Tensor]:
    """By the same kernel; without dropout it asks nothing of a generator."""
    seed, grad = q.new_zeros(2, dtype=torch.uint64), grad.contiguous()
    if fused == "flash":
        sizes = None, None, q.shape[2], k.shape[2]
        return aten._scaled_dot_product_flash_attention_backward(
            grad, q, k, v, out, lse.contiguous(), *sizes, 0.0, causal, seed, seed
        )
    lse = F.pad(lse, (0, -lse.shape[2] % 32), value=torch.inf)  # as the forward leaves it
    wanted = [True, True, True, False]
    return aten._scaled_dot_product_efficient_attention_backward(
        grad, q, k, v, None, out, lse, seed, seed, 0.0, wanted, causal
    )[:3]


def _scores(q, k, causal: bool, mask: Tensor | None) -> Tensor:
    scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
    if causal:
        every = scores.new_ones(scores.shape[-2:], dtype=torch.bool)
        mask = causal_part(every if mask is None else mask, q.shape[2])
    return scores if mask is None else scores.masked_fill(~mask.to(q.device), -torch.inf)
