"""DeepSpeed-Ulysses: trade the cut dim for cut heads, just for attention.

    q, k, v [B, T/sp, S, H, C] --all_to_all--> [B, T, S, H/sp, C] --attend--> o
    o       [B, T, S, H/sp, C] --all_to_all--> [B, T/sp, S, H, C]

Stages that do not attend along the cut dim need nothing.

Source: Jacobs et al. (2023), arXiv:2309.14509.
"""

from workbench.layout import Geometry, Layout, Stage
from workbench.strategies.attention import Heads
from workbench.strategies.base import Strategy


class Ulysses(Strategy):
    """One dim stays cut for the whole model; attention along it goes by heads."""

    name = "ulysses"
    formula = "4 all-to-alls of M/N in the stage that attends along the cut dim: 4M/N a layer"
    source = "Jacobs et al. 2023, arXiv:2309.14509"
    cuts_sequence = True

    @classmethod
    def check(cls, geometry: Geometry, p: int) -> None:
        if geometry.num_heads % p:
            raise ValueError(
                f"{cls.name} gives each rank whole attention heads, so num_heads must be a "
                f"multiple of p; got num_heads={geometry.num_heads}, p={p}"
            )

    def attend(self, q: Heads, k: Heads, v: Heads, layout: Layout, stage: Stage) -> Heads:
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        by_dim = self.geometry.heads(layout)
        by_head = by_dim.with_split("heads")
        q, k, v = (self.comm.relayout(t, by_dim, by_head) for t in (q, k, v))
        out = super().attend(q, k, v, layout, stage)
        return self.comm.relayout(out, by_head, by_dim)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * 4 * (p - 1) * geometry.local_elements(shard, p) // p
