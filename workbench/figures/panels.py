"""One rank's panel of a layout picture: its part of the tensor, in one, two or three dims."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from workbench.figures.marks import Area, Arrow, Picture, Point, Text, rectangle
from workbench.figures.style import PALE, rank_colours
from workbench.layout import shard_size
from workbench.trace import Box, Frame, Piece, box
from workbench.units import human_bytes

#: What the bar beside a panel shows: the residual stream's width, attention's heads, hidden units.
_WIDTHS = {"model": "M", "heads": "heads", "ff": "MLP"}


@dataclass(frozen=True)
class Panel:
    """How a tensor's dims become pixels.

    Parameters
    ----------
    dims : tuple of str
        One, two or three: the last runs to the right, the one before downwards, the first of
        three away from the reader.
    size : dict of str to int
        Entries of each dim.
    padded : dict of str to int
        The same with padding.
    """

    dims: tuple[str, ...]
    size: dict[str, int]
    padded: dict[str, int]

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> "Panel":
        """The panel that fits all ``frames`` of one walk."""
        first = frames[0]
        dims = tuple(d for d in first.layout.sizes if d not in ("batch", "model"))
        if len(dims) > 3:
            raise ValueError(
                f"a layout is drawn in 1, 2 or 3 dims; this model has {len(dims)}: {list(dims)}. "
                "Join two that are always attended together into one"
            )
        size = {dim: first.layout.sizes[dim] for dim in dims}
        cut = {frame.layout.split for frame in frames}
        p = first.p
        padded = {d: shard_size(n, p) * p if d in cut else n for d, n in size.items()}
        return cls(dims, size, padded)

    @cached_property
    def down(self) -> float:
        return {1: 30.0, 2: 78.0, 3: 62.0}[len(self.dims)]

    @cached_property
    def across(self) -> float:
        return {1: 140.0, 2: 104.0, 3: 80.0}[len(self.dims)]

    @cached_property
    def away(self) -> Point:
        """How far the dim that leads away from the reader moves a point: right, and up."""
        return (30.0, 24.0) if len(self.dims) == 3 else (0.0, 0.0)

    @property
    def height(self) -> float:
        return self.down + self.away[1]

    @property
    def width(self) -> float:
        return self.across + self.away[0] + 22

    def point(self, at: dict[str, float]) -> Point:
        """Pixel of a place given by its entry along each dim."""
        share = [at[dim] / self.padded[dim] for dim in self.dims]
        away, down, across = [0.0] * (3 - len(share)) + share
        down = down if len(self.dims) > 1 else 0.0
        x = across * self.across + away * self.away[0]
        return x, down * self.down + (1 - away) * self.away[1]

    def faces(self, part: Box) -> list[tuple[Point, ...]]:
        """The visible faces of a box, the front one first."""
        low, high = ({d: part[d][i] for d in self.dims} for i in (0, 1))
        if len(self.dims) == 1:
            (x0, _), (x1, _) = self.point(low), self.point(high)
            return [((x0, 0), (x1, 0), (x1, self.down), (x0, self.down))]
        if len(self.dims) == 2:
            (x0, y0), (x1, y1) = self.point(low), self.point(high)
            return [((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        away, down, right = self.dims

        def corner(a, d, r):
            ends = (low, high)
            return self.point({away: ends[a][away], down: ends[d][down], right: ends[r][right]})

        front = tuple(corner(0, *dr) for dr in ((0, 0), (0, 1), (1, 1), (1, 0)))
        top = (corner(0, 0, 0), corner(0, 0, 1), corner(1, 0, 1), corner(1, 0, 0))
        side = (corner(0, 0, 1), corner(1, 0, 1), corner(1, 1, 1), corner(0, 1, 1))
        return [front, top, side]


def panel_picture(panel: Panel, frame: Frame, rank: int) -> Picture:
    """What ``rank`` holds after ``frame``, what it has sent away, where attention runs."""
    picture = Picture(panel.width, panel.height + 12)
    whole = {dim: (0, size) for dim, size in panel.size.items()}
    full = {dim: (0, size) for dim, size in panel.padded.items()}
    picture.marks += [Area(face, "#FAFAFA", PALE) for face in panel.faces(full)[:1]]
    picture.marks += [Area(face, None, "#AAAAAA", 0.8) for face in panel.faces(full)[1:]]
    pieces = frame.pieces(rank)
    picture.marks += _width_bar(panel, frame, rank, pieces)
    places = _by_place(panel, pieces, rank)
    for piece in sorted(places, key=lambda piece: (piece.held, _depth(panel, piece.box))):
        picture.marks += _piece_marks(panel, frame, rank, piece, whole)
    if frame.event in ("attend", "hop"):
        picture.marks += _arrows(panel, frame, rank, pieces)
    return picture


def _by_place(panel: Panel, pieces: list[Piece], rank: int) -> list[Piece]:
    """One piece a place: several that differ only in their heads show in the bar instead."""
    places: dict[tuple, list[Piece]] = {}
    for piece in pieces:
        key = (piece.held, piece.role, *(piece.box[dim] for dim in panel.dims))
        places.setdefault(key, []).append(piece)
    return [same[0] if len(same) == 1 else same[0]._replace(source=rank, role="joined")
            for same in places.values()]  # fmt: skip


def _depth(panel: Panel, part: Box) -> tuple:
    """Sorts boxes from the farthest to the nearest."""
    if len(panel.dims) < 3:
        return ()
    away, down, right = panel.dims
    return (-part[away][0], -part[down][0], part[right][0])


def _piece_marks(panel, frame, rank, piece: Piece, whole: Box) -> list:
    colours = rank_colours(frame.p)
    fill = colours[rank if piece.source is None else piece.source]
    flat = {dim: piece.box[dim] for dim in panel.dims}
    data = {d: (min(lo, whole[d][1]), min(hi, whole[d][1])) for d, (lo, hi) in flat.items()}
    marks = []
    if data != flat and piece.held:
        marks += [Area(f, "#FFFFFF", "#AAAAAA", 0.8, hatched=True, tip=f"rank {rank}: padding")
                  for f in panel.faces(flat)]  # fmt: skip
    if all(lo < hi for lo, hi in data.values()):
        tip, faces = _tip(frame, rank, piece, data), panel.faces(data)
        options = {"hatched": not piece.held, "dashed": not piece.held, "tip": tip}
        marks += [Area(f, fill, **options) for f in faces]
        hidden = len(panel.dims) == 3 and frame.hop and piece.role == "Q"
        if piece.held and not hidden:
            marks += _label(faces[0], piece, frame, across=panel.dims[-1] == frame.layout.split)
    return marks


def _tip(frame: Frame, rank: int, piece: Piece, data: Box) -> str:
    part = " x ".join(f"{dim} {lo}-{hi - 1}" for dim, (lo, hi) in data.items())
    if not piece.held:
        return f"rank {rank} has sent away {part}"
    origin = "summed over all ranks" if piece.source is None else f"from rank {piece.source}"
    own = " (its own)" if piece.source == rank else f" ({origin})"
    what = {"Q": "queries of ", "KV": "keys and values of "}.get(piece.role, "")
    return f"rank {rank} holds {what}{part}{own}"


def _label(face: Sequence[Point], piece: Piece, frame: Frame, across: bool) -> list[Text]:
    xs, ys = zip(*face, strict=True)
    words = {"Q": "Q", "KV": "K,V", "joined": ""}.get(piece.role)
    if words is None:
        words = "Σ" if piece.source is None else str(piece.source)
        words = words if frame.event == "collective" else ""
    elif words and not frame.hop:
        words = "Q,K,V" if len(frame.attended) == 1 else ""  # two arrows leave no room
    left, top, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    size = min(11.0, width / max(1, 0.62 * len(words)), 1.2 * height)
    centre, middle = left + width / 2, sum(ys) / len(ys)
    if piece.role and across:  # above a ring's arrow, which runs across
        size = min(size, width / max(1, 0.8 * len(words)), 0.36 * height)
        middle = top + 0.24 * height
    elif piece.role:  # beside it
        size, centre = min(size, width / max(1, 1.4 * len(words))), left + width / 4
    if not words or size < 5:
        return []
    return [Text(centre, middle, words, round(size, 1), bold=True)]


def _arrows(panel: Panel, frame: Frame, rank: int, pieces: list[Piece]) -> list[Arrow]:
    mine = {d: (pieces[0].box[d][0], min(pieces[0].box[d][1], panel.size[d])) for d in panel.dims}
    if any(lo >= hi for lo, hi in mine.values()):
        return []  # padding only
    middle = {d: (lo + hi) / 2 for d, (lo, hi) in mine.items()}
    if frame.hop:
        other = {d: sum(pieces[1].box[d]) / 2 for d in panel.dims}
        start, end = ((panel.point(at)) for at in (middle, other))
        if len(panel.dims) == 1:
            start, end = ((x, panel.down / 2) for x, _ in (start, end))
        return [Arrow(start, end, heads=1)]
    arrows = []
    front = {panel.dims[0]: mine[panel.dims[0]][0]} if len(panel.dims) == 3 else {}
    for dim in frame.attended:
        low, high = mine[dim]
        at = middle | {k: v for k, v in front.items() if k != dim}
        if dim in front:  # along the top of the box
            at |= {panel.dims[1]: mine[panel.dims[1]][0]}
        start, end = panel.point(at | {dim: low}), panel.point(at | {dim: high})
        if len(panel.dims) == 1:
            start, end = (start[0], panel.down / 2), (end[0], panel.down / 2)
        arrows.append(Arrow(start, end))
    return arrows


def _width_bar(panel: Panel, frame: Frame, rank: int, pieces: list[Piece]) -> list:
    """The bar at the right of a panel: which heads, or how much of the width, a rank holds."""
    name = next(name for name in _WIDTHS if name in frame.layout.sizes)
    size = max(frame.layout.sizes[name], pieces[0].box[name][1])
    x0, x1, height, top = panel.width - 15, panel.width - 5, panel.down, panel.away[1]
    mine, colours = box(frame.layout, rank, frame.p)[name], rank_colours(frame.p)
    sent = any(not piece.held and piece.box[name] != mine for piece in pieces)
    marks = [rectangle(x0, top, x1, top + height, colours[rank] if sent else "#FAFAFA",
                       edge="#AAAAAA", hatched=sent)]  # fmt: skip
    sources = {p.box[name]: p.source for p in pieces if p.held}
    for (lo, hi), source in sources.items():
        colour = colours[rank if len(sources) == 1 or source is None else source]
        tip = f"rank {rank} holds {_WIDTHS[name]} {lo}-{hi - 1} of {size}"
        marks.append(rectangle(x0, top + height * lo / size, x1, top + height * hi / size, colour,
                               tip=tip))  # fmt: skip
    marks.append(Text((x0 + x1) / 2 - 2, panel.height + 7, _WIDTHS[name], 8))
    return marks


def legend(panel: Panel) -> str:
    """Which dim runs where, with its size."""
    places = ("across", "down", "away")
    dims = zip(places, reversed(panel.dims), strict=False)
    return ", ".join(f"{place}: {dim} {panel.size[dim]:,}" for place, dim in dims)


def note(frame: Frame) -> str:
    """What an event costs, in a few words."""
    return f"each sends {human_bytes(frame.sent_bytes)}" if frame.records else ""
