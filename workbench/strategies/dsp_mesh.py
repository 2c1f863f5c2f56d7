"""DSP along one axis of a mesh, and Ulysses or DSP again along another.

With Ulysses, one dim stays cut for the whole model; DSP's cut moves as always, and lies inside the
other where both are on one dim, as in [B, T, S/(ulyssesxdsp), M]. With DSP twice, two dims are cut,
one by each axis; where only one is free both cut that one, and a switch is two all-to-alls.

It pays where p is larger than any dim, or where the cheaper axis keeps bytes inside a node.

Source: Zhao et al. (2024), arXiv:2403.10266, for one axis; for two, our own.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import ClassVar, NamedTuple

from workbench.dims import Stage
from workbench.geometry import Geometry
from workbench.layout import Cut, Layout, shard_size
from workbench.strategies.attention import Heads, KVHeads
from workbench.strategies.base import Relaid, Strategy, Stream
from workbench.strategies.dsp import DSP
from workbench.strategies.schedule import free_dims
from workbench.strategies.ulysses import Ulysses, by_heads, exchanged_elements


class Place(NamedTuple):
    """How many ranks an axis has, and which of them this is."""

    size: int
    rank: int = 0


class DSPxDSP(Strategy):
    """Each axis cuts a dim that the stage doesn't attend along."""

    name = "dsp-dsp"
    formula = "1 all-to-all of (a-1)/a M/p along an axis of a ranks, whenever its dim is attended"
    source = "Zhao et al. 2024, arXiv:2403.10266, twice; ours"
    cuts_sequence = True
    axes: ClassVar = ("outer", "inner")
    #: The axes whose cut moves.
    moving: ClassVar = ("outer", "inner")

    def __init__(self, comm, geometry, shard=None):
        super().__init__(comm, geometry, None)
        self.places = {axis: Place(comm[axis].size, comm[axis].rank) for axis in self.axes}
        self.start = self.first_layout(geometry, self.places, shard)

    @classmethod
    def check(cls, geometry: Geometry, p) -> None:
        DSP.check.__func__(cls, geometry, prod(p[axis] for axis in cls.moving))

    @classmethod
    def first_layout(cls, geometry: Geometry, places, shard: str) -> Layout:
        """``shard`` is cut by the first axis; by the second, what the first stage leaves free."""
        first, second = cls.axes
        cut = Cut(shard, first, *places[first])
        whole = Layout(geometry.stream.sizes, axis=second, outer=(cut,))
        return whole.with_split(_free(geometry, whole, geometry.stages[0], geometry.stages[1:]))

    def arrange(
        self, x: Stream, layout: Layout, stage: Stage, upcoming: Sequence[Stage]
    ) -> tuple[Relaid, Layout]:
        for before, after in self.moves(self.geometry, self.places, layout, stage, upcoming):
            x, layout = self.comm.relayout(x, before, after), after
        return x, layout

    @classmethod
    def moves(
        cls, geometry: Geometry, places, layout: Layout, stage: Stage, upcoming: Sequence[Stage]
    ) -> Iterator[tuple[Layout, Layout]]:
        """Yield (before, after) of each all-to-all ahead of ``stage``; the inner cuts go first."""
        cuts = [*layout.outer, Cut(layout.split, layout.axis, *places[layout.axis])]
        for cut in reversed(cuts):
            if cut.axis in cls.moving and cut.dim in stage and cut.parts > 1:
                if cut.axis != layout.axis:
                    layout = layout.turned(cut.axis, *places[layout.axis])
                after = layout.with_split(_free(geometry, layout, stage, upcoming))
                yield layout, after
                layout = after

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        return sum(cls._elements(geometry, p, shard, branches))

    @classmethod
    def arranged_elements(cls, geometry, p, shard, branches):
        return cls._elements(geometry, p, shard, branches)[0]

    @classmethod
    def _elements(cls, geometry, p, shard, branches) -> tuple[int, int]:
        """What each rank sends between the attentions, and inside of them."""
        places, moved, inside = {axis: Place(p[axis]) for axis in cls.axes}, 0, 0
        layout = cls.first_layout(geometry, places, shard)
        stages = [stage for stage in branches if stage is not None]
        for i, stage in enumerate(stages):
            for before, after in cls.moves(geometry, places, layout, stage, stages[i + 1 :]):
                moved, layout = moved + _sent(before, after, p[before.axis]), after
            inside += cls.inside_elements(geometry, p, layout, stage)
        return moved, inside

    @classmethod
    def inside_elements(cls, geometry: Geometry, p, layout: Layout, stage: Stage) -> int:
        """Elements that each rank sends within one attention."""
        return 0


class DSPxUlysses(DSPxDSP):
    """Ulysses keeps one dim cut and trades it for heads; DSP cuts another, which moves."""

    name = "dsp-ulysses"
    formula = "DSP's switches along one axis, Ulysses' 4 all-to-alls along the other; each of M/p"
    source = "Zhao et al. 2024 and Jacobs et al. 2023; the mesh is ours"
    axes: ClassVar = ("ulysses", "dsp")
    moving: ClassVar = ("dsp",)

    @classmethod
    def check(cls, geometry: Geometry, p) -> None:
        super().check(geometry, p)
        Ulysses.check(geometry, p["ulysses"])

    def attend(self, q: Heads, k: KVHeads, v: KVHeads, layout: Layout, stage: Stage) -> Heads:
        if layout.outer[0].dim not in stage:
            return super().attend(q, k, v, layout, stage)
        layout = layout.turned("ulysses", *self.places["dsp"])
        attend = partial(super().attend, layout=layout, stage=stage)
        return by_heads(q, k, v, self.comm["ulysses"], self.geometry, layout, attend)

    @classmethod
    def inside_elements(cls, geometry, p, layout, stage):
        if layout.outer[0].dim not in stage:
            return 0
        return exchanged_elements(geometry, p["ulysses"], prod(layout.local_shape(p["dsp"])))


def _free(geometry: Geometry, layout: Layout, stage: Stage, upcoming: Sequence[Stage]) -> str:
    """The dim to cut: not attended; better not cut by another axis; needed last (Belady)."""
    taken = [cut.dim for cut in layout.outer]

    def merit(dim):
        next_use = next((i for i, s in enumerate(upcoming) if dim in s), len(upcoming))
        return dim not in taken, next_use

    # Where none is free, `check` has seen to it that the moving axes have one rank, or none moves.
    return max(free_dims(geometry, stage) or geometry.dims, key=merit)


def _sent(before: Layout, after: Layout, parts: int) -> int:
    """Elements that each rank sends in one switch along an axis of ``parts`` ranks."""
    shape = list(before.local_shape(parts))
    cut = before.position(after.split)
    shape[cut] = shard_size(shape[cut], parts)
    return prod(shape) * (parts - 1)
