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

aten = torch.ops.aten
#: One rank's queries, keys, values or attention output.
Heads = Float[Tensor, "batch *dims heads channel"]
Queries = Float[Tensor, "n h s_q c"]
Keys = Float[Tensor, "n h s_k c"]
LogSumExp = Float[Tensor, "n h s_q"]


def fold(t: Heads, along: Sequence[int]) -> Float[Tensor, "n h s c"]:
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


def attention(q: Queries, k: Keys, v: Keys) -> Queries:
    """``softmax(q k^T / sqrt(c)) v`` over the whole of ``k`` and ``v``."""
    if q.device.type == "cuda":
        return F.scaled_dot_product_attention(q, k, v)
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]


def attention_with_lse(q: Queries, k: Keys, v: Keys) -> tuple[Queries, LogSumExp]:
    """Attention over one block of keys, and the log-sum-exp of its scores. No autograd."""
    if q.device.type != "cuda":
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    if q.dtype != torch.float64:
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
        return out, lse[..., : q.shape[-2]]
    scores = q @ k.mT * q.shape[-1] ** -0.5
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp() @ v, lse


def attention_backward(
    grad: Queries, q: Queries, k: Keys, v: Keys, out: Queries, lse: LogSumExp
) -> tuple[Queries, Keys, Keys]:
    """Gradients of one block, given the output and log-sum-exp over *all* blocks.

    With ``P = exp(q k^T / sqrt(c) - lse)`` this block's probabilities and ``D`` the row sums of
    ``grad * out``: ``dv = P^T grad``, ``dS = P * (grad v^T - D)``, ``dq = dS k``, ``dk = dS^T q``.
    Source: Dao et al. (2022), FlashAttention, arXiv:2205.14135, algorithm 4.
    """
    if q.device.type != "cuda":
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, False
        )
    scale = q.shape[-1] ** -0.5
    grad, q, k, v, out = (t.to(lse.dtype) for t in (grad, q, k, v, out))
    p = (q @ k.mT * scale - lse[..., None]).exp()
    d = (grad * out).sum(-1, keepdim=True)
    ds = p * (grad @ v.mT - d) * scale
    return ds @ k, ds.mT @ q, p.mT @ grad


def attention_flops(q: tuple[int, ...], k: tuple[int, ...]) -> int:
    """Flops of one attention forward: two products of ``[S_q, C] x [C, S_k]`` for N x H heads."""
    n, h, s_q, c = q
    return 4 * n * h * s_q * k[2] * c


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu)
def _forward_flops(q, k, v, *args, out_shape=None, **kwargs) -> int:
    return attention_flops(q, k)


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _backward_flops(grad, q, k, v, *args, out_shape=None, **kwargs) -> int:
    # Four products; that the kernel computes the scores a second time is left out, as usual.
    return 2 * attention_flops(q, k)
