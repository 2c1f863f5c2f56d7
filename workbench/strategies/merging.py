"""Attention to one block of keys, merged with what earlier blocks gave, and its backward.

The two torch ops make a faked block cost microseconds and be counted whole. Both change their
first arguments in place; on meta tensors they do nothing.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from workbench.strategies.attention import (
    attention_backward,
    attention_flops,
    attention_with_lse,
)


def merge(out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool, mask) -> None:
    """Merge attention to one block of keys and values into ``out`` and ``lse``."""
    new_out, new_lse = attention_with_lse(q, k, v, causal, mask)
    total = torch.logaddexp(lse, new_lse.to(lse.dtype))
    base = total.masked_fill(total == -torch.inf, 0.0)  # such a query has not seen a key yet
    out.mul_((lse - base).exp_().unsqueeze(-1))
    out.addcmul_(new_out.to(out.dtype), (new_lse - base).exp_().unsqueeze(-1))
    lse.copy_(total)


def merge_backward(
    dq: Tensor, dk: Tensor, dv: Tensor, grad: Tensor, q: Tensor, k: Tensor, v: Tensor,
    out: Tensor, lse: Tensor, causal: bool, mask: Tensor | None,
) -> None:  # fmt: skip
    """Add one block's part to the gradients of its queries, keys and values."""
    parts = attention_backward(grad, q, k, v, out, lse, causal, mask)
    for total, part in zip((dq, dk, dv), parts, strict=True):
        total.add_(part)


# Library.define rather than torch.library.custom_op, whose first call imports a compiler: 3 s.
_OPS = torch.library.Library("workbench", "DEF")
_OPS.define(
    "ring_merge(Tensor(a!) out, Tensor(b!) lse, Tensor q, Tensor k, Tensor v, bool causal, "
    "Tensor? mask) -> ()"
)
_OPS.define(
    "ring_merge_backward(Tensor(a!) dq, Tensor(b!) dk, Tensor(c!) dv, Tensor grad, Tensor q, "
    "Tensor k, Tensor v, Tensor out, Tensor lse, bool causal, Tensor? mask) -> ()"
)
for _name, _function in (("ring_merge", merge), ("ring_merge_backward", merge_backward)):
    for _device in ("CPU", "CUDA"):
        _OPS.impl(_name, _function, _device)
    _OPS.impl(_name, lambda *arguments: None, "Meta")
ring_merge, ring_merge_backward = (
    torch.ops.workbench.ring_merge,
    torch.ops.workbench.ring_merge_backward,
)


@register_flop_formula(ring_merge)
def _forward_flops(out, lse, q, k, v, causal, mask, out_shape=None) -> int:
    return attention_flops(q, k, causal)


@register_flop_formula(ring_merge_backward)
def _backward_flops(dq, dk, dv, grad, q, k, v, out, lse, causal, mask, out_shape=None) -> int:
    return 2 * attention_flops(q, k, causal)
