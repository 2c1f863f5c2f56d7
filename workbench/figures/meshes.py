"""Ranks as a grid, coloured by group: who talks to whom along which axis, and how much."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.figure import Figure

from workbench.collectives import Phase, bytes_to_peers
from workbench.figures.marks import Arrow, Picture, Text, printed, rectangle, svg
from workbench.figures.style import INK, captioned, rank_colours
from workbench.mesh import check_mesh, coordinates
from workbench.outcome import Step
from workbench.units import human_bytes

#: Pixels: a rank, the gaps between ranks, what stands above the grid.
_WIDE, _HIGH, _GAP, _TOP = 46, 40, 24, 64
_CROSSES = "#D55E00"


@dataclass(frozen=True)
class AxisTraffic:
    """What runs along one axis of a mesh.

    Attributes
    ----------
    groups : tuple of tuple of int
        Ranks that communicate with each other, in their order on the axis.
    kinds : tuple of str
        The collectives.
    sent_bytes, crossing_bytes : int
        Sent by one rank; sent from node to node by all ranks together.
    """

    axis: str
    groups: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    sent_bytes: int
    crossing_bytes: int


def axis_traffic(
    step: Step, mesh: Mapping[str, int], per_node: int | None = None,
    phases: Sequence[Phase] = ("forward", "backward"),
) -> list[AxisTraffic]:  # fmt: skip
    """What a step sends along each axis, and how much of it from node to node.

    Parameters
    ----------
    step : Step
        Faked or real, with the same ``mesh``.
    mesh : mapping of str to int
        Ranks along each axis, the outermost first.
    per_node : int or None
        Ranks in a node: ranks 0 to ``per_node - 1`` are in the first. ``None``: all in one.
    phases : sequence of {"forward", "backward", "gradients"}
        What to add up. Weights' gradients are summed over all axes at once and left out.
    """
    mesh, per_node = check_mesh(mesh, step.p), per_node or step.p
    found = []
    for axis in mesh:
        groups = groups_along(mesh, axis)
        log = [r for r in step.log if r.axis == axis and r.phase in phases]
        crossing = 0
        for record in log:
            for group in groups:
                crossing += sum(_crossing(record, group, per_node))
        kinds = tuple(dict.fromkeys(r.kind for r in log))
        found.append(AxisTraffic(axis, groups, kinds, sum(r.sent_bytes for r in log), crossing))
    return found


def _crossing(record, group, per_node) -> Iterator[int]:
    for place, rank in enumerate(group):
        to = bytes_to_peers(record, place, len(group))
        yield sum(n for n, peer in zip(to, group, strict=True) if _apart(rank, peer, per_node))


def _apart(rank: int, other: int, per_node: int) -> bool:
    return rank // per_node != other // per_node


def groups_along(mesh: Mapping[str, int], axis: str) -> tuple[tuple[int, ...], ...]:
    """The groups of ranks that communicate along ``axis``.

    Examples
    --------
    >>> groups_along({"ring": 2, "ulysses": 2}, "ring")
    ((0, 2), (1, 3))
    """
    size, groups = 1, {}
    for ranks in mesh.values():
        size *= ranks
    for rank in range(size):
        places = coordinates(rank, mesh)
        others = tuple(place for name, place in places.items() if name != axis)
        groups.setdefault(others, []).append(rank)
    return tuple(map(tuple, groups.values()))


def mesh_chart(step: Step, mesh: Mapping[str, int], per_node: int | None = None) -> Figure:
    """The ranks as a grid, once for each axis, coloured by their group along that axis.

    Parameters
    ----------
    step, mesh, per_node
        As for `axis_traffic`.
    """
    return captioned(printed(_mesh(step, mesh, per_node)), mesh_caption(step, mesh, per_node))


def mesh_svg(step: Step, mesh: Mapping[str, int], per_node: int | None = None) -> str:
    """`mesh_chart` as an SVG element."""
    return svg(_mesh(step, mesh, per_node), mesh_caption(step, mesh, per_node))


def _mesh(step, mesh, per_node) -> Picture:
    page = Picture(0, 0)
    for each in axis_traffic(step, mesh, per_node):
        page.add(_grid(each, mesh, step.p, per_node or step.p), page.width + 8, 6)
    return page


def _grid(found: AxisTraffic, mesh: Mapping[str, int], p: int, per_node: int) -> Picture:
    across = tuple(mesh.values())[-1]
    lines = [
        f"along {found.axis}: {len(found.groups)} x {len(found.groups[0])} ranks",
        f"each sends {human_bytes(found.sent_bytes)} {' and '.join(found.kinds)}".strip(),
        f"from node to node, in all: {human_bytes(found.crossing_bytes)}",
    ]
    lines = lines if per_node < p else lines[:2]
    page = Picture(max(across * (_WIDE + _GAP) + 8, 6.8 * max(map(len, lines))), _TOP + 6)
    page.height += p // across * (_HIGH + _GAP)
    for i, words in enumerate(lines):
        page.marks.append(Text(4, 8 + 17 * i, words, 12 - (i > 0), "start", bold=not i))
    page.marks += _nodes(p, across, per_node)
    links = [
        mark for group in found.groups for mark in _links(group, found.kinds, across, per_node)
    ]
    page.marks += [mark for mark in links if not isinstance(mark, Arrow)]  # behind the ranks
    colours = rank_colours(len(found.groups))
    for colour, group in zip(colours, found.groups, strict=True):
        for rank in group:
            x, y = _corner(rank, across)
            tip = f"rank {rank}: {coordinates(rank, mesh)}, node {rank // per_node}"
            page.marks.append(rectangle(x, y, x + _WIDE, y + _HIGH, colour, tip=tip))
            page.marks.append(Text(x + _WIDE / 2, y + 13, f"rank {rank}", 10.5))
    page.marks += [mark for mark in links if isinstance(mark, Arrow)]
    return page


def _corner(rank: int, across: int) -> tuple[float, float]:
    row, column = divmod(rank, across)
    return 14 + column * (_WIDE + _GAP), _TOP + 8 + row * (_HIGH + _GAP)


def _nodes(p: int, across: int, per_node: int):
    """A dashed box around what a node holds of each row; around whole rows one for all."""
    if per_node >= p:
        return
    for first in range(0, p, per_node):
        ranks = range(first, min(first + per_node, p))
        rows: dict[int, list[int]] = {}
        for rank in ranks:
            rows.setdefault(rank // across, []).append(rank)
        whole = all(len(held) == across for held in rows.values())
        for held in [list(ranks)] if whole else rows.values():
            (x0, y0), (x1, y1) = (_corner(rank, across) for rank in (held[0], held[-1]))
            box = (x0 - 8, y0 - 8, x1 + _WIDE + 8, y1 + _HIGH + 8)
            yield rectangle(
                *box, None, edge="#777777", dashed=True, tip=f"node {first // per_node}"
            )


def _links(group: Sequence[int], kinds: Sequence[str], across: int, per_node: int):
    """A bar through ranks that all exchange; arrows where each sends to the next."""
    if len(group) == 1 or not kinds:
        return
    at = [_corner(rank, across) for rank in group]
    flat = at[0][1] == at[-1][1]
    rows = (group[1] - group[0]) // across
    aside = 0 if flat else 7 * (group[0] // across % rows)  # groups that lie in between
    if "all_to_all" in kinds:
        crosses = any(_apart(group[0], rank, per_node) for rank in group)
        (x0, y0), (x1, y1) = at[0], at[-1]
        middle = (y0 + _HIGH / 2) if flat else (x0 + _WIDE / 2 + aside)
        bar = (x0 + _WIDE, middle - 3, x1, middle + 3)
        bar = bar if flat else (middle - 3, y0 + _HIGH, middle + 3, y1)
        colour = _CROSSES if crosses else INK
        yield rectangle(*bar, colour, edge=colour)
        return
    hops = [*pairwise(range(len(group)))] + [(len(group) - 1, 0)] * (len(group) > 2)
    for i, j in hops:
        colour = _CROSSES if _apart(group[i], group[j], per_node) else INK
        out, back = _ends(flat, home=j == 0)
        start, end = (at[i][0] + out[0] + aside, at[i][1] + out[1]), at[j]
        end = (end[0] + back[0] + aside, end[1] + back[1])
        yield Arrow(start, end, 2 if len(group) == 2 else 1, colour)


def _ends(flat: bool, home: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where in its rank's box an arrow starts and ends; the way home runs beside the others."""
    if home:
        inset = (_WIDE / 2, _HIGH - 9) if flat else (_WIDE - 9, _HIGH / 2)
        return inset, inset
    return ((_WIDE, 14), (0, 14)) if flat else ((12, _HIGH), (12, 0))


def mesh_caption(step: Step, mesh: Mapping[str, int], per_node: int | None = None) -> str:
    """Say what a chart of a mesh shows, with its numbers."""
    found = axis_traffic(step, mesh, per_node)
    sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.items())
    sent = "; ".join(
        f"along {each.axis} {human_bytes(each.sent_bytes)}"
        + (f" by {' and '.join(each.kinds)}" if each.kinds else "")
        for each in found
    )
    text = (
        f"{step.strategy} on {step.p} ranks, {sizes}. Forward and backward each rank sends {sent}."
    )
    kinds = {kind for each in found for kind in each.kinds}
    text += " One colour: one group along the axis."
    text += " A bar: each exchanges with each." if "all_to_all" in kinds else ""
    text += " Arrows: each sends to the next." if kinds - {"all_to_all"} else ""
    if per_node and per_node < step.p:
        crossing = human_bytes(sum(each.crossing_bytes for each in found))
        text += f" Dashed: nodes of {per_node} ranks; in all {crossing} go from node to node"
        text += " (red)." if crossing != human_bytes(0) else "."
    return text
