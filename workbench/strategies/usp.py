"""USP: Ulysses within, a ring without. The sequence is cut twice, heads once.

    q, k, v [B, T/(ring x ulysses), S, H, C] --all_to_all--> [B, T/ring, S, H/ulysses, C]
    K, V go round the ring of the ranks with the same heads; o comes back the way q went.

So heads limit only the Ulysses axis, and the ring is shorter by as much. Which axis lies inside a
node is a matter of the mesh.

Sources: Fang & Zhao (2024), arXiv:2405.07719; Gu et al. (2024), arXiv:2406.18485.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from workbench.dims import Stage
from workbench.geometry import Geometry
from workbench.layout import Cut, Layout, shard_size
from workbench.strategies.attention import Heads, KVHeads
from workbench.strategies.base import Strategy
from workbench.strategies.ring import ring_attention
from workbench.strategies.ulysses import Ulysses, by_heads, exchanged_elements, sent_heads


class USP(Strategy):
    """Ulysses along one mesh axis, a ring along the other, both in the same stage."""

    name = "usp"
    formula = "Ulysses' all-to-alls of M/p and a ring of K and V, each along its own axis"
    source = "Fang & Zhao 2024, arXiv:2405.07719"
    cuts_sequence = True
    axes: ClassVar = ("ulysses", "ring")
    options: ClassVar = {"order": ("contiguous", "zigzag", "striped")}
    order = "contiguous"

    def __init__(self, comm, geometry, shard=None):
        super().__init__(comm, geometry, shard)
        ring = comm["ring"]
        outer = (Cut(shard, "ring", ring.size, ring.rank, self.dealt(ring.size)),)
        self.start = Layout(geometry.stream.sizes, shard, axis="ulysses", outer=outer)

    @classmethod
    def dealt(cls, ring: int) -> str:
        """The order in which the ring's ranks deal tokens; one rank has them all as they come."""
        return cls.order if ring > 1 else "contiguous"

    @classmethod
    def check(cls, geometry: Geometry, p: Mapping[str, int]) -> None:
        Ulysses.check(geometry, p["ulysses"])

    def attend(self, q: Heads, k: KVHeads, v: KVHeads, layout: Layout, stage: Stage) -> Heads:
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        ulysses, ring = self.comm["ulysses"], self.comm["ring"]
        attend = partial(super().attend, layout=layout, stage=stage)
        if ring.size > 1:
            along = Layout(layout.sizes, layout.split, axis="ring", order=self.order)
            given = {"comm": ring, "geometry": self.geometry, "layout": along, "stage": stage}
            attend = partial(ring_attention, **given)
        return by_heads(q, k, v, ulysses, self.geometry, layout, attend)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        exchanged, travelling = cls._elements(geometry, p, shard)
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * (exchanged + (p["ring"] - 1) * travelling)

    @classmethod
    def backward_elements(cls, geometry, p, shard, branches):
        exchanged, travelling = cls._elements(geometry, p, shard)
        crossing = sum(stage is not None and shard in stage for stage in branches)
        hops = 2 * p["ring"] - 1 if p["ring"] > 1 else 0
        return crossing * (exchanged + hops * travelling)

    @classmethod
    def _elements(cls, geometry, p, shard) -> tuple[int, int]:
        """What a rank sends of q, k, v and o along ulysses; its K and V that go round the ring."""
        ulysses, ring = p["ulysses"], p["ring"]
        length = shard_size(geometry.dims[shard], ring, cls.dealt(ring))
        others = geometry.local_elements(shard, geometry.dims[shard]) // geometry.num_heads
        heads = sent_heads(geometry, ulysses)
        part = shard_size(length, ulysses) * others * geometry.num_heads
        exchanged = exchanged_elements(geometry, ulysses, part)
        return exchanged, 2 * heads // ulysses * length * others
