"""Dynamic sequence parallelism: before attending along a dim, make sure it is not the cut one.

    [B, T/sp, S, M] --all_to_all--> [B, T, S/sp, M]   (before attention along time)
    [B, T, S/sp, M] --all_to_all--> [B, T/sp, S, M]   (before attention along space)

Where several dims could be cut next, a schedule decides: `lazy` makes the fewest switches.

The authors' own program switches around one attention instead, on its normalised input and its
output, and leaves the residual stream cut as it is. With two dims the volume is the same, but the
MLPs then always run in the first layout.

Source: Zhao et al. (2024), arXiv:2403.10266, and its program, github.com/NUS-HPC-AI-Lab/VideoSys.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from workbench.dims import Stage
from workbench.geometry import Geometry
from workbench.layout import Layout
from workbench.strategies.base import Relaid, Strategy, Stream
from workbench.strategies.schedule import SCHEDULES, free_dims, switch_elements, switches


class DSP(Strategy):
    """The cut dim moves from stage to stage, so that attention is always local."""

    name = "dsp"
    formula = "1 all-to-all of M/N between two stages that need it: 2M/N a layer of two stages"
    source = "Zhao et al. 2024, arXiv:2403.10266"
    cuts_sequence = True
    options: ClassVar[Mapping[str, tuple]] = {
        "schedule": ("lazy", "eager", "bytes"),
        "around": ("residual", "attention"),
    }
    schedule: ClassVar[str] = "lazy"
    around: ClassVar[str] = "residual"

    @classmethod
    def check(cls, geometry: Geometry, p: int) -> None:
        for stage in geometry.stages:
            if p > 1 and not free_dims(geometry, stage):
                raise ValueError(
                    f"{cls.name} keeps a dim cut that the stage does not attend along; stage "
                    f"{stage} attends along all dims {list(geometry.dims)}, so none is left"
                )

    def arrange(
        self, x: Stream, layout: Layout, stage: Stage, upcoming: Sequence[Stage]
    ) -> tuple[Relaid, Layout]:
        if self.around == "attention" or layout.split is None:
            return x, layout
        plan = SCHEDULES[self.schedule]
        cuts = plan(self.geometry, self.comm.size, layout.split, [stage, *upcoming])
        switched = layout.with_split(next(cuts))
        return self.comm.relayout(x, layout, switched), switched

    def inside(self, layout: Layout, stage: Stage) -> Layout:
        if self.around == "residual" or layout.split not in stage:
            return layout
        return layout.with_split(aside(self.geometry, self.comm.size, layout.split, stage))

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        stages = [stage for stage in branches if stage is not None]
        if cls.around == "attention":
            crossing = (stage for stage in stages if shard in stage)
            moves = ((shard, aside(geometry, p, shard, stage)) for stage in crossing)
            return 2 * sum(switch_elements(geometry, p, *move) for move in moves)
        made = switches(cls.schedule, geometry, p, shard, stages)
        moves = Counter((before, after) for _, before, after in made)
        return sum(times * switch_elements(geometry, p, *move) for move, times in moves.items())

    @classmethod
    def arranged_elements(cls, geometry, p, shard, branches):
        if cls.around == "attention":
            return 0
        return cls.forward_elements(geometry, p, shard, branches)


def aside(geometry: Geometry, p: int, shard: str, stage: Stage) -> str:
    """The dim to cut during one attention along ``shard``: the one that is padded least."""
    return min(free_dims(geometry, stage), key=lambda d: switch_elements(geometry, p, shard, d))
