"""DeepSpeed-Ulysses: trade the cut dim for cut heads, just for attention.

    q, k, v [B, T/sp, S, H, C] --all_to_all--> [B, T, S, H/sp, C] --attend--> o
    o       [B, T, S, H/sp, C] --all_to_all--> [B, T/sp, S, H, C]

Other stages need nothing. Where there are fewer heads of keys and values than ranks, copies of them
are sent. ``packed`` sends q, k and v in one exchange.

Source: Jacobs et al. (2023), arXiv:2309.14509.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from workbench.comm import Comm
from workbench.dims import Stage
from workbench.geometry import Geometry
from workbench.layout import Layout
from workbench.strategies.attention import Heads, KVHeads
from workbench.strategies.base import Strategy


class Ulysses(Strategy):
    """One dim stays cut for the whole model; attention along it goes by heads."""

    name = "ulysses"
    formula = "4 all-to-alls of M/N in the stage that attends along the cut dim: 4M/N a layer"
    source = "Jacobs et al. 2023, arXiv:2309.14509"
    cuts_sequence = True
    options: ClassVar = {"packed": (False, True)}
    packed = False

    @classmethod
    def check(cls, geometry: Geometry, p: int) -> None:
        if geometry.num_heads % p:
            raise ValueError(
                f"{cls.name} gives each rank whole attention heads, so num_heads must be a "
                f"multiple of p; got num_heads={geometry.num_heads}, p={p}"
            )
        if geometry.kv_heads % p and p % geometry.kv_heads:
            raise ValueError(
                f"{cls.name} gives each rank whole heads of keys and values, or a copy of one, so "
                f"num_kv_heads must be a multiple of p or divide it; got num_kv_heads="
                f"{geometry.kv_heads}, p={p}"
            )

    def attend(self, q: Heads, k: KVHeads, v: KVHeads, layout: Layout, stage: Stage) -> Heads:
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        attend = partial(super().attend, layout=layout, stage=stage)
        return by_heads(q, k, v, self.comm, self.geometry, layout, attend, self.packed)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * exchanged_elements(geometry, p, geometry.local_elements(shard, p))


def sent_heads(geometry: Geometry, p: int) -> int:
    """Heads of keys that travel: each rank needs one, so fewer than ``p`` are copied."""
    return max(geometry.kv_heads, p)


def exchanged_elements(geometry: Geometry, p: int, part: int) -> int:
    """What a rank with ``part`` elements of the stream sends of q, k, v and o, there and back."""
    heads = 2 * (geometry.num_heads + sent_heads(geometry, p))
    return heads * (part // geometry.num_heads) * (p - 1) // p


def by_heads(
    q: Heads, k: KVHeads, v: KVHeads, comm: Comm, geometry: Geometry, layout: Layout,
    attend: Callable[..., Tensor], packed: bool = False,
) -> Heads:  # fmt: skip
    """Run ``attend(q, k, v)`` with heads cut over ``comm`` in place of the dim of ``layout``."""
    copies = sent_heads(geometry, comm.size) // geometry.kv_heads
    k, v = (t.repeat_interleave(copies, -2) if copies > 1 else t for t in (k, v))
    how = comm, geometry, layout
    q, k, v = trade_packed((q, k, v), *how) if packed else (trade(t, *how) for t in (q, k, v))
    by_dim = geometry.heads(layout)
    return comm.relayout(attend(q, k, v), by_dim.with_split("heads"), by_dim)


def trade_packed(qkv: Sequence[Tensor], comm: Comm, geometry: Geometry, layout: Layout):
    """Each rank's heads of q, k and v go side by side: ready to be sent, and quick to attend to."""
    parts = [t.unflatten(-2, (comm.size, -1)).movedim((-3, -2), (0, 1)) for t in qkv]
    side = torch.cat(parts, 1).flatten(0, 1)
    by_dim = geometry.heads(layout, len(side), first=True)
    together = comm.relayout(side, by_dim, by_dim.with_split("heads")).movedim(0, -2)
    return together.split([part.shape[1] for part in parts], -2)


def trade(t: KVHeads, comm: Comm, geometry: Geometry, layout: Layout) -> Tensor:
    """Exchange parts of the dim that ``layout`` cuts for parts of the heads."""
    by_dim = geometry.heads(layout, t.shape[-2])
    return comm.relayout(t, by_dim, by_dim.with_split("heads"))
