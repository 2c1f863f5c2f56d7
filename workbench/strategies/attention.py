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
from workbench.strategies import gpu_blocks
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
    if q.device.type == "cuda":
        return gpu_blocks.forward(q, k, v, causal, mask)
    out, lse = attend_block(q, k, v, causal, mask)
    if mask is None:
        return out, lse
    seen = causal_part(mask, q.shape[2]) if causal else mask
    # Of a query that sees none of these keys, the kernel says 0.
    return out, lse.masked_fill(~seen.any(-1), -torch.inf)


def attention_backward(
    grad: Queries, q: Queries, k: Keys, v: Keys, out: Queries, lse: LogSumExp,
    causal: bool = False, mask: Tensor | None = None,
) -> tuple[Queries, Keys, Keys]:  # fmt: skip
    """Gradients of one block, given the output and log-sum-exp over *all* blocks."""
    if q.device.type == "cuda":
        return gpu_blocks.backward(grad, q, k, v, out, lse, causal, mask)
    bias = None if mask is None else bias_of(mask, q)
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, causal, attn_mask=bias
    )


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
