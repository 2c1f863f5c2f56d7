"""DeepSpeed-Ulysses: trade the cut dim for cut heads, just for attention.

    q, k, v [B, T/sp, S, H, C] --all_to_all--> [B, T, S, H/sp, C] --attend--> o
    o       [B, T, S, H/sp, C] --all_to_all--> [B, T/sp, S, H, C]

Stages that do not attend along the cut dim need nothing. Where there are fewer heads of keys and
values than ranks, copies of them are sent. ``packed`` sends q, k and v in one exchange.

Source: Jacobs et al. (2023), arXiv:2309.14509.
"""

from collections.abc import Sequence
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
        copies = sent_heads(self.geometry, self.comm.size) // self.geometry.kv_heads
        k, v = (t.repeat_interleave(copies, -2) if copies > 1 else t for t in (k, v))
        if self.packed:
            q, k, v = self._trade_packed(q, k, v, layout)
        else:
            q, k, v = (trade(t, self.comm, self.geometry, layout) for t in (q, k, v))
        out = super().attend(q, k, v, layout, stage)
        by_dim = self.geometry.heads(layout)
        return self.comm.relayout(out, by_dim.with_split("heads"), by_dim)

    def _trade_packed(self, q: Heads, k: KVHeads, v: KVHeads, layout: Layout) -> Sequence[Tensor]:
        """Each rank's heads of queries, keys and values go side by side, in one exchange."""
        parts = [t.unflatten(-2, (self.comm.size, -1)) for t in (q, k, v)]
        together = torch.cat(parts, -2).flatten(-3, -2)
        together = trade(together, self.comm, self.geometry, layout)
        return together.split([part.shape[-2] for part in parts], -2)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        heads = 2 * geometry.num_heads + 2 * sent_heads(geometry, p)
        part = geometry.local_elements(shard, p) // geometry.num_heads
        return crossing * heads * (p - 1) * part // p


def sent_heads(geometry: Geometry, p: int) -> int:
    """Heads of keys that travel: each rank needs one, so fewer than ``p`` are copied."""
    return max(geometry.kv_heads, p)


def trade(t: KVHeads, comm: Comm, geometry: Geometry, layout: Layout) -> Tensor:
    """Exchange parts of the dim that ``layout`` cuts for parts of the heads."""
    by_dim = geometry.heads(layout, t.shape[-2])
    return comm.relayout(t, by_dim, by_dim.with_split("heads"))
