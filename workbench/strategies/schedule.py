"""Which dim to cut during each stage, when several are free: three schedules for DSP.

A cut may stay for all the stages that don't attend along it. A schedule therefore divides the
model's stages into runs, each with one dim that none of its stages needs; between two runs the cut
is switched.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product

from workbench.dims import Stage
from workbench.geometry import Geometry
from workbench.layout import shard_size

#: Yields the dim that is cut during each of the stages, given the one that is cut before them.
Schedule = Callable[[Geometry, int, str, Sequence[Stage]], Iterator[str]]


def lazy(geometry: Geometry, p: int, cut: str, stages: Sequence[Stage]) -> Iterator[str]:
    """As few switches as can be: only when needed, and then to the dim next needed last.

    No run of stages could be longer than the one that this starts, so no other schedule is ever
    ahead by a switch. Of dims needed equally late the one that is padded least is cut.

    Source: Belady (1966), IBM Systems Journal 5(2):78-101, for the pages of a memory.
    """
    for i, stage in enumerate(stages):
        if cut in stage:
            later = stages[i + 1 :]

            def merit(dim, later=later):
                next_use = next((j for j, s in enumerate(later) if dim in s), len(later))
                return next_use, -geometry.local_elements(dim, p)

            cut = max(free_dims(geometry, stage), key=merit)
        yield cut


def eager(geometry: Geometry, p: int, cut: str, stages: Sequence[Stage]) -> Iterator[str]:
    """Each stage has its own cut, whatever comes next: the dim after its last one, in a circle.

    K single-dim stages in a circle take K switches a layer.
    """
    dims = list(geometry.dims)
    for stage in stages:
        last = max(map(dims.index, stage))
        circle = dims[last + 1 :] + dims[:last]
        yield next(dim for dim in circle if dim not in stage)


def fewest_bytes(geometry: Geometry, p: int, cut: str, stages: Sequence[Stage]) -> Iterator[str]:
    """As few bytes as can be, padding included; of equals, as few switches; then the latest.

    Where sizes do not divide by ``p``, cutting an awkward dim costs more, and a further switch or
    an earlier one may pay. At most one switch is made before a stage. By dynamic programming from
    the last stage back: ``rest[dim]`` is what the stages to come cost if ``dim`` is cut now.
    """
    pairs = product(geometry.dims, repeat=2)
    moves = {pair: switch_elements(geometry, p, *pair) for pair in pairs}
    rest = dict.fromkeys(geometry.dims, (0, 0))
    choices: list[dict[str, str]] = []
    for stage in reversed(stages):
        costs, choice = {}, {}
        for before in geometry.dims:
            options = {
                after: (moves[before, after] + rest[after][0], (after != before) + rest[after][1])
                for after in free_dims(geometry, stage)
            }
            choice[before] = min(options, key=lambda dim: (*options[dim], dim != before))
            costs[before] = options[choice[before]]
        rest = costs
        choices.append(choice)
    for choice in reversed(choices):
        cut = choice[cut]
        yield cut


SCHEDULES: dict[str, Schedule] = {"lazy": lazy, "eager": eager, "bytes": fewest_bytes}


@lru_cache(maxsize=256)  # pure, and asked for several times by every closed form
def cuts(
    schedule: str, geometry: Geometry, p: int, shard: str, stages: tuple[Stage, ...]
) -> tuple[str, ...]:
    """Name the dim that is cut during each of the stages."""
    return tuple(SCHEDULES[schedule](geometry, p, shard, stages))


def switches(
    schedule: str, geometry: Geometry, p: int, shard: str, stages: Sequence[Stage]
) -> Iterator[tuple[int, str, str]]:
    """Yield (stage's number, from, to) of each switch that a model with these stages makes."""
    for number, cut in enumerate(cuts(schedule, geometry, p, shard, tuple(stages))):
        if cut != shard:
            yield number, shard, cut
        shard = cut


def switch_elements(geometry: Geometry, p: int, before: str, after: str) -> int:
    """Elements that each rank sends when the cut moves: ``(p-1)/p`` of its padded part."""
    if before == after:
        return 0
    part = geometry.local_elements(before, p) // geometry.dims[after]
    return part * shard_size(geometry.dims[after], p) * (p - 1)


def free_dims(geometry: Geometry, stage: Stage) -> list[str]:
    """The dims that ``stage`` doesn't attend along: those that may be cut meanwhile."""
    return [dim for dim in geometry.dims if dim not in stage]
