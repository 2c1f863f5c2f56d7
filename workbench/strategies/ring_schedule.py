"""Which keys each query of a ring sees at each hop, and the arithmetic of one such block.

The two torch ops make a faked hop cost microseconds and be counted whole. Both change their
first arguments in place; on meta tensors they do nothing.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from workbench.dims import Stage
from workbench.layout import Layout, shard_size
from workbench.strategies.attention import (
    attention_backward,
    attention_flops,
    attention_with_lse,
)
from workbench.strategies.masks import mask_samples, visible


class Block(NamedTuple):
    """Some of a rank's queries against some of the keys that it holds at one hop."""

    queries: slice
    keys: slice
    causal: bool = False
    mask: Tensor | None = None

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that are computed."""
        queries, keys = (s.stop - s.start for s in self[:2])
        return sum(min(i + 1, keys) for i in range(queries)) if self.causal else queries * keys


@lru_cache(maxsize=4096)
def blocks(stage: Stage, layout: Layout, rank: int, source: int, p: int) -> tuple[Block, ...]:
    """What ``rank`` computes when it holds the keys and values of ``source``.

    Queries and keys are folded with the cut dim first. Blocks leave out padding and whatever no
    query sees.
    """
    held = [places(stage, layout, r, p) for r in (rank, source)]
    if not stage.masked:
        found = (slice(0, len(held[0])), slice(0, len(held[1])))
        return (Block(*found),) if all(held) else ()
    pieces = [runs(stage, layout, p, len(side)) for side in held]
    # Of its own keys a query sees at least itself: those first, so that no sum is ever empty.
    pairs = sorted(product(*pieces), key=lambda pair: pair[0].start != pair[1].start)
    made = (_block(stage, q, k, held[0][q], held[1][k]) for q, k in pairs)
    return tuple(block for block in made if block is not None)


def masked_blocks(
    stage: Stage, layout: Layout, rank: int, source: int, p: int, rows: int
) -> list[Block]:
    """`blocks` of ``rows`` folded sequences, without what is padding in their samples."""
    found = blocks(stage, layout, rank, source, p)
    if stage.real is None:
        return list(found)
    real = stage.real[:, places(stage, layout, source, p)]
    keys = ((block, real[:, block.keys]) for block in found)
    return [b._replace(mask=mask_samples(r, rows, b.mask)) for b, r in keys if r.any()]


def places(stage: Stage, layout: Layout, rank: int, p: int) -> list[int]:
    """Where in the stage's sequence the folded entries of a rank stand."""
    names = [layout.split, *(dim for dim in stage if dim != layout.split)]
    steps = {dim: prod(layout.sizes[d] for d in stage[i + 1 :]) for i, dim in enumerate(stage)}
    held = ([i * steps[dim] for i in layout.held(dim, rank, p)] for dim in names)
    return [sum(parts) for parts in product(*held)]


def runs(stage: Stage, layout: Layout, p: int, count: int) -> list[slice]:
    """The pieces of a rank's entries that follow one another: two in a zigzag, else all."""
    if layout.order != "zigzag":
        return [slice(0, count)] if count else []
    row = prod(layout.shared[dim] for dim in stage if dim != layout.split)
    half = shard_size(layout.shared[layout.split], 2 * p) * row
    return [s for s in (slice(0, min(half, count)), slice(half, count)) if s.start < s.stop]


def _block(stage: Stage, q: slice, k: slice, queries: Sequence[int], keys: Sequence[int]):
    ahead, behind = max(queries) - min(keys), max(keys) - min(queries)
    near = stage.window is None or max(ahead, behind) < stage.window
    if near and (behind <= 0 or not stage.causal):
        return Block(q, k)
    if stage.causal and ahead < 0:
        return None
    if stage.causal and near and sorted(queries) == queries and sorted(keys) == keys:
        for skip in (0, 1):  # 1: each query sees those before its own place only
            if _is_causal(queries[skip:], keys):
                return Block(slice(q.start + skip, q.stop), k, True) if queries[skip:] else None
    mask = visible(queries, keys, stage.causal, stage.window)
    return Block(q, k, False, mask) if mask.any() else None


def _is_causal(queries: Sequence[int], keys: Sequence[int]) -> bool:
    """Tell whether query i sees just the keys up to i."""
    seen = all(key <= query for query, key in zip(queries, keys, strict=False))
    return seen and all(key > query for query, key in zip(queries, keys[1:], strict=False))


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
