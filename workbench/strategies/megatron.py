"""Megatron: cut the weights. Each rank has some heads and some hidden units of the MLP.

Tensor parallelism keeps the residual stream whole on every rank:

    [B, T, S, M] --branch--> partial sums of [B, T, S, M] --all_reduce--> [B, T, S, M]

Megatron-SP cuts it along one dim between the branches, where norms, biases and residuals are:

    [B, T/sp, S, M] --all_gather--> [B, T, S, M] --branch--> partial sums
                                                 --reduce_scatter--> [B, T/sp, S, M]

With ``regather`` a branch keeps only its part [B, T/sp, S, M]; the backward gathers it again, for
the weights' gradients, as Megatron-LM does: 6fM rather than 4fM backward, where f = (p-1)/p.

Sources: Shoeybi et al. (2019), arXiv:1909.08053; Korthikanti et al. (2022), arXiv:2205.05198.
"""

from math import prod
from typing import ClassVar

from torch import Tensor

from workbench.geometry import Geometry
from workbench.layout import Layout
from workbench.strategies.base import Relaid, Strategy, Stream
from workbench.strategies.regather import regathered


class MegatronTP(Strategy):
    """Heads and hidden units are cut; all else happens on every rank alike."""

    name = "megatron-tp"
    formula = "2 all-reduces of 2M for each attention + MLP: 8M a layer of two stages"
    source = "Shoeybi et al. 2019, arXiv:1909.08053"
    cut_weights: ClassVar = {
        "query.weight": 0, "query.bias": 0, "key.weight": 0, "key.bias": 0,
        "value.weight": 0, "value.bias": 0, "output.weight": 1,
        "up.weight": 0, "up.bias": 0, "down.weight": 1,
    }  # fmt: skip

    @classmethod
    def check(cls, geometry: Geometry, p: int) -> None:
        if geometry.num_heads % p:
            raise ValueError(
                f"{cls.name} gives each rank whole attention heads, so num_heads must be a "
                f"multiple of p; got num_heads={geometry.num_heads}, p={p}"
            )
        if geometry.kv_heads % p:
            raise ValueError(
                f"{cls.name} gives each rank whole heads of keys and values, so num_kv_heads must "
                f"be a multiple of p; got num_kv_heads={geometry.kv_heads}, p={p}"
            )

    def enter(self, h: Stream, layout: Layout) -> Relaid:
        # Megatron's f: forward nothing; backward, the ranks' partial gradients are summed.
        return self.comm.relayout(h, layout, layout.with_value("shared"))

    def leave(self, h: Stream, layout: Layout) -> Relaid:
        # Megatron's g: forward, the ranks' partial outputs are summed; backward nothing.
        return self.comm.relayout(h, layout.with_value("partial"), layout)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        m = prod(geometry.stream.local_shape(p))
        return len(branches) * 2 * (p - 1) * m // p


class MegatronSP(MegatronTP):
    """Between the branches the residual stream is cut along one dim."""

    name = "megatron-sp"
    formula = (
        "2 all-gathers + 2 reduce-scatters of M for each attention + MLP: 8M a layer of two stages"
    )
    source = "Korthikanti et al. 2022, arXiv:2205.05198"
    cuts_sequence = True
    options: ClassVar = {"regather": (False, True)}
    regather = False

    def project(self, h: Stream, layout: Layout, *maps: tuple[Tensor, Tensor]) -> list[Tensor]:
        if not self.regather or layout.split is None:
            return super().project(h, layout, *maps)
        return regathered(h, self.comm, layout, *maps)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        return len(branches) * 2 * (p - 1) * geometry.local_elements(shard, p)

    @classmethod
    def backward_elements(cls, geometry, p, shard, branches):
        forward = cls.forward_elements(geometry, p, shard, branches)
        return forward * 3 // 2 if cls.regather else forward
