"""Softmax attention on any device, and the two halves of it that a ring needs.

Kernels take queries, keys and values as ``[N, H, S, C]``, with everything that is not attended
along folded into N. The CPU kernel also runs on meta tensors, so a faked step makes the same
tensors as a real one; scratch memory inside kernels is not seen by either.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from workbench.dims import Stage
from workbench.strategies.masks import bias_of, causal_part, mask_samples, visible

aten = torch.ops.aten
#: One rank's queries or attention output; its keys or values.
Heads = Float[Tensor, "batch *dims heads channel"]
KVHeads = Float[Tensor, "batch *dims kv_heads channel"]
Queries = Float[Tensor, "n h s_q c"]
Keys = Float[Tensor, "n h_kv s_k c"]
LogSumExp = Float[Tensor, "n h s_q"]


def fold(t: KVHeads, along: Sequence[int]) -> Float[Tensor, "n h s c"]:
    """``[B, *dims, H, C] -> [N, H, S, C]``: S joins the dims at the positions ``along``."""
    t = t.permute(_folded_order(t.dim(), along))
    others = t.dim() - 2 - len(along)
    return t.flatten(others + 1, -2).flatten(0, others - 1)


def unfold(t: Float[Tensor, "n h s c"], along: Sequence[int], shape: tuple[int, ...]) -> Heads:
    """Undo `fold` of a tensor that had ``shape``."""
    order = _folded_order(len(shape), along)
    t = t.reshape([shape[i] for i in order])
    return t.permute([order.index(i) for i in range(len(order))])


def _folded_order(rank: int, along: Sequence[int]) -> list[int]:
    heads, channel = rank - 2, rank - 1
    others = [i for i in range(heads) if i not in along]
    return [*others, heads, *along, channel]


def attention(q: Queries, k: Keys, v: Keys, stage: Stage = ()) -> Queries:
    """``softmax(q k^T / sqrt(c)) v`` over those of ``k`` and ``v`` that ``stage`` lets see."""
    causal, window = getattr(stage, "causal", False), getattr(stage, "window", None)
    mask, real = None, getattr(stage, "real", None)
    if window is not None:
        places = range(k.shape[2])
        mask, causal = visible(places, places, causal, window), False
    return attend_block(q, k, v, causal, mask_samples(real, len(q), mask))[0]


def attend_block(
    q: Queries, k: Keys, v: Keys, causal: bool = False, mask: Tensor | None = None
) -> tuple[Queries, LogSumExp | None]:
    """Attention to one block of keys; on the CPU also the log-sum-exp of its scores.

    ``mask``: True where a query sees a key ``[S_q, S_k]``, or ``[N, 1, 1 or S_q, S_k]``. Where
    ``num_heads`` of ``k`` is smaller, each serves several of ``q``. A query that sees none gets 0.
    """
    if q.device.type == "cuda" and causal and mask is not None:
        mask, causal = causal_part(mask, q.shape[2]), False
    bias = None if mask is None else bias_of(mask, q)
    if q.device.type == "cuda":
        grouped = q.shape[1] != k.shape[1]
        options = {"attn_mask": bias, "is_causal": causal, "enable_gqa": grouped}
        return F.scaled_dot_product_attention(q, k, v, **options), None
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=bias)


def attention_with_lse(
    q: Queries, k: Keys, v: Keys, causal: bool = False, mask: Tensor | None = None
) -> tuple[Queries, LogSumExp]:
    """Attention over one block of keys, and the log-sum-exp of its scores. No autograd."""
    if q.device.type != "cuda":
        out, lse = attend_block(q, k, v, causal, mask)
        if mask is None:
            return out, lse
        seen = causal_part(mask, q.shape[2]) if causal else mask
        # Of a query that sees none of these keys, the kernel says 0.
        return out, lse.masked_fill(~seen.any(-1), -torch.inf)
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    if q.dtype != torch.float64 and not causal and mask is None:
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
        return out, lse[..., : q.shape[-2]]
    scores = _scores(q, k, causal, mask)
    lse = scores.logsumexp(-1)
    seen = scores - torch.where(lse.isinf(), 0.0, lse)[..., None]
    return seen.exp().to(v.dtype) @ v, lse


def _scores(q, k, causal, mask) -> Tensor:
    scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
    if causal:
        every = scores.new_ones(scores.shape[-2:], dtype=torch.bool)
        mask = causal_part(every if mask is None else mask, q.shape[2])
    return scores if mask is None else scores.masked_fill(~mask.to(q.device), -torch.inf)


def attention_backward(
    grad: Queries, q: Queries, k: Keys, v: Keys, out: Queries, lse: LogSumExp,
    causal: bool = False, mask: Tensor | None = None,
) -> tuple[Queries, Keys, Keys]:  # fmt: skip
    """Gradients of one block, given the output and log-sum-exp over *all* blocks.

    With ``P = exp(q k^T / sqrt(c) - lse)`` this block's probabilities and ``D`` the row sums of
    ``grad * out``: ``dv = P^T grad``, ``dS = P * (grad v^T - D)``, ``dq = dS k``, ``dk = dS^T q``.
    Source: Dao et al. (2022), FlashAttention, arXiv:2205.14135, algorithm 4.
    """
    if q.device.type != "cuda":
        bias = None if mask is None else bias_of(mask, q)
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, causal, attn_mask=bias
        )
    heads, scale = k.shape[1], q.shape[-1] ** -0.5
    grad, q, k, v, out = (t.to(lse.dtype) for t in (grad, q, k, v, out))
    k, v = (t.repeat_interleave(q.shape[1] // heads, 1) for t in (k, v))
    p = (_scores(q, k, causal, mask) - lse[..., None]).exp()
    ds = p * (grad @ v.mT - (grad * out).sum(-1, keepdim=True)) * scale
    dk, dv = (t.unflatten(1, (heads, -1)).sum(2) for t in (ds.mT @ q, p.mT @ grad))
    return ds @ k, dk, dv


def attention_flops(q: tuple[int, ...], k: tuple[int, ...], causal: bool = False) -> int:
    """Flops of one attention forward: two products of ``[S_q, C] x [C, S_k]`` for N x H heads.

    Causal attention computes only the pairs that are seen; a mask saves nothing.
    """
    n, h, s_q, c = q
    pairs = s_q * (s_q + 1) // 2 if causal else s_q * k[2]
    return 4 * n * h * pairs * c


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu)
def _forward_flops(q, k, v, dropout=0.0, causal=False, *, out_shape=None, **kwargs) -> int:
    return attention_flops(q, k, causal)


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _backward_flops(grad, q, k, v, out, lse, dropout, causal, *, out_shape=None, **kwargs) -> int:
    # Four products; that the kernel computes the scores a second time is left out, as usual.
    return 2 * attention_flops(q, k, causal)
