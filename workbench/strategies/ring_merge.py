"""One hop of a ring as two torch ops, so that a faked hop costs microseconds and is counted whole.

Both change their first arguments in place and see only the first ``length`` keys: the rest is
padding. On meta tensors they do nothing.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from workbench.strategies.attention import (
    attention_backward,
    attention_flops,
    attention_with_lse,
)


def merge(out: Tensor, lse: Tensor, q: Tensor, kv: Tensor, length: int) -> None:
    """Merge attention over one rank's keys and values ``kv`` into ``out`` and ``lse``."""
    if length:
        k, v = kv[:, :, :, :length]
        new_out, new_lse = attention_with_lse(q, k, v)
        total = torch.logaddexp(lse, new_lse.to(lse.dtype))
        out.mul_((lse - total).exp_().unsqueeze(-1))
        out.addcmul_(new_out.to(out.dtype), (new_lse - total).exp_().unsqueeze(-1))
        lse.copy_(total)


def merge_backward(
    dq: Tensor, dkv: Tensor, grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor,
    length: int,
) -> None:  # fmt: skip
    """Add one rank's part to the gradients of the queries and of its keys and values."""
    if length:
        k, v = kv[:, :, :, :length]
        parts = attention_backward(grad, q, k, v, out, lse)
        for total, part in zip((dq, *dkv[:, :, :, :length]), parts, strict=True):
            total.add_(part)


# Library.define rather than torch.library.custom_op, whose first call imports a compiler: 3 s.
_OPS = torch.library.Library("workbench", "DEF")
_OPS.define("ring_merge(Tensor(a!) out, Tensor(b!) lse, Tensor q, Tensor kv, int length) -> ()")
_OPS.define(
    "ring_merge_backward(Tensor(a!) dq, Tensor(b!) dkv, Tensor grad, Tensor q, Tensor kv, "
    "Tensor out, Tensor lse, int length) -> ()"
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
def _forward_flops(out, lse, q, kv, length, out_shape=None) -> int:
    return attention_flops(q, (*kv[1:3], length))


@register_flop_formula(ring_merge_backward)
def _backward_flops(dq, dkv, grad, q, kv, out, lse, length, out_shape=None) -> int:
    return 2 * attention_flops(q, (*kv[1:3], length))
