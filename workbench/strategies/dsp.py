"""Dynamic sequence parallelism: before attending along a dim, make sure it is not the cut one.

    [B, T/sp, S, M] --all_to_all--> [B, T, S/sp, M]   (before attention along time)
    [B, T, S/sp, M] --all_to_all--> [B, T/sp, S, M]   (before attention along space)

Where several dims could be cut next, the one that is attended along farthest in the future wins
(Belady's rule), so that the next switch is as late as can be.

Sources: Zhao et al. (2024), arXiv:2403.10266; Belady (1966), IBM Systems Journal 5(2):78-101.
"""

from collections.abc import Sequence

from workbench.layout import Geometry, Layout, Stage, shard_size
from workbench.strategies.base import Relaid, Strategy, Stream


class DSP(Strategy):
    """The cut dim moves from stage to stage, so that attention is always local."""

    name = "dsp"
    formula = "1 all-to-all of M/N between two stages that need it: 2M/N a layer of two stages"
    source = "Zhao et al. 2024, arXiv:2403.10266"
    cuts_sequence = True

    @classmethod
    def check(cls, geometry: Geometry, p: int) -> None:
        for stage in geometry.stages:
            if p > 1 and not _free_dims(geometry, stage):
                raise ValueError(
                    f"{cls.name} keeps a dim cut that the stage does not attend along; stage "
                    f"{stage} attends along all dims {list(geometry.dims)}, so none is left"
                )

    def arrange(
        self, x: Stream, layout: Layout, stage: Stage, upcoming: Sequence[Stage]
    ) -> tuple[Relaid, Layout]:
        if layout.split not in stage:
            return x, layout
        switched = layout.with_split(next_split(self.geometry, stage, upcoming))
        return self.comm.relayout(x, layout, switched), switched

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        stages = [stage for stage in branches if stage is not None]
        return sum(
            switch_elements(geometry, p, before, after)
            for before, after in switches(geometry, shard, stages)
        )


def next_split(geometry: Geometry, stage: Stage, upcoming: Sequence[Stage]) -> str:
    """The dim to cut during ``stage``: of those free, the one whose next use is farthest away."""

    def next_use(dim):
        return next((i for i, later in enumerate(upcoming) if dim in later), len(upcoming))

    return max(_free_dims(geometry, stage), key=next_use)


def switches(geometry: Geometry, shard: str | None, stages: Sequence[Stage]):
    """Yield (from, to) of each switch that a model with these stages makes."""
    for i, stage in enumerate(stages):
        if shard in stage:
            before, shard = shard, next_split(geometry, stage, stages[i + 1 :])
            yield before, shard


def switch_elements(geometry: Geometry, p: int, before: str, after: str) -> int:
    """Elements that each rank sends when the cut moves: ``(p-1)/p`` of its padded part."""
    part = geometry.local_elements(before, p) // geometry.dims[after]
    return part * shard_size(geometry.dims[after], p) * (p - 1)


def _free_dims(geometry: Geometry, stage: Stage) -> list[str]:
    return [dim for dim in geometry.dims if dim not in stage]
